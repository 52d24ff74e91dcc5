#!/usr/bin/python3
"""Takes the pictures out of Noto's colour emoji font (Debian: fonts-noto-color-emoji, python3-fonttools): emoji.py OUT [FONT].
One PNG of 136 x 128 pixels a character; variants that differ in the skin's tone alone, flags, digits and letters are left out."""
import pathlib, sys
from fontTools.ttLib import TTFont

out = pathlib.Path(sys.argv[1])
font = TTFont(sys.argv[2] if len(sys.argv) > 2 else "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
out.mkdir(parents=True, exist_ok=True)
names = {name: code for code, name in font.getBestCmap().items()}
strike = font["CBDT"].strikeData[0]
count = 0
for name, glyph in sorted(strike.items()):
    code = names.get(name, 0)
    if code < 0x2190 or 0x1F1E6 <= code <= 0x1F1FF or 0x1F3FB <= code <= 0x1F3FF:  # sequences, letters, flags' halves, tones
        continue
    (out / f"{code:05x}.png").write_bytes(glyph.imageData)
    count += 1
print(f"{count} pictures in {out}")
