"""Pictures and arrays of many kinds with what Pillow and NumPy read from them: make_pictures.py FOLDER

FOLDER/files holds the files: those that lie there already are kept (the first ones were gathered by hand: PNGs of every
colour type and depth, interlaced and damaged ones, JPEGs with all kinds of sampling, markers and damage), the rest
is made here. FOLDER/expected.npz then holds an array [h, w, c] of bytes for each picture that can be read: Pillow's pixels,
turned by EXIF's orientation, transparency drawn on black, grey with one channel, 16 bits rounded to 8.
Needs Pillow (its versions 9 to 13 agree) and NumPy; made with Pillow 13.0 and NumPy 2.4."""
import io, pathlib, struct, sys, zlib

import numpy as np
from PIL import Image, ImageFile, ImageOps

root = pathlib.Path(sys.argv[1])
files = root / "files"
files.mkdir(parents=True, exist_ok=True)
rows, columns = np.mgrid[0:5, 0:7]
rgb = np.stack([rows * 40 + columns, columns * 30, 255 - rows * 20 - columns * 9], -1).astype(np.uint8)
exif_of = lambda o, big=False: (b"MM\0*\0\0\0\x08" if big else b"II*\0\x08\0\0\0") + struct.pack((">" if big else "<") + "HHHIHHI", 1, 0x112, 3, 1, o, 0, 0)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(colour, depth, raw, before=b"", after=b"", size=None):
    h, w = size or raw.shape[:2]
    lines = b"" if size else b"".join(b"\0" + line.tobytes() for line in raw)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0, 0)) + before + chunk(b"IDAT", zlib.compress(lines)) + after + chunk(b"IEND", b"")


def jpeg(image, **options):
    to = io.BytesIO()
    image.save(to, "JPEG", quality=95, **options)
    return to.getvalue()


def put(name, data):
    (files / name).write_bytes(data)


put("exif_before.png", png(2, 8, rgb, before=chunk(b"eXIf", exif_of(6))))
put("exif_behind.png", png(2, 8, rgb, after=chunk(b"eXIf", exif_of(8, big=True))))
put("icc_broken.png", png(2, 8, rgb, before=chunk(b"iCCP", b"broken\0\0" + b"x" * 20)))
put("cut.png", png(2, 8, rgb)[:80])
put("huge.png", png(0, 1, None, size=(23000, 23000)))
put("nothing.png", png(2, 8, None, size=(0, 7)))
for o in range(1, 9):
    put(f"exif{o}.jpg", jpeg(Image.fromarray(rgb), exif=b"Exif\0\0" + exif_of(o, o % 2 == 0)))
ink = np.dstack([255 - rgb, columns * 10]).astype(np.uint8)
adobe = jpeg(Image.fromarray(ink, "CMYK"))  # which Pillow stores inverted, as Adobe does
inverted = jpeg(Image.fromarray(255 - ink, "CMYK"))
at = adobe.index(b"\xff\xee")
put("cmyk_adobe.jpg", adobe)
put("cmyk_no_adobe.jpg", inverted[:at] + inverted[at + 2 + struct.unpack(">H", adobe[at + 2 : at + 4])[0] :])
put("ycck.jpg", adobe[: at + 15] + b"\2" + adobe[at + 16 :])
for name, options in (("lossless", {"lossless": True}), ("lossy", {"quality": 90}), ("exif", {"lossless": True, "exif": b"Exif\0\0" + exif_of(6)})):
    to = io.BytesIO()
    Image.fromarray(rgb).save(to, "WEBP", **options)
    put(f"{name}.webp", to.getvalue())
    if name == "lossless":
        put("cut.webp", to.getvalue()[:-12])
to = io.BytesIO()
Image.fromarray(np.dstack([rgb, columns.astype(np.uint8) * 40])).save(to, "WEBP", lossless=True, exact=True)
put("alpha.webp", to.getvalue())
to = io.BytesIO()
Image.fromarray(rgb).save(to, "WEBP", save_all=True, append_images=[Image.fromarray(rgb[::-1])], lossless=True)
put("animation.webp", to.getvalue())

ImageFile.LOAD_TRUNCATED_IMAGES = True  # as libjpeg goes on behind a cut, so is Pillow made to
refused = {"huge.png", "nothing.png", "cut.png", "cut.webp", "animation.webp", "rgb8_badidatcrc.png", "leading.jpg", "lossless_marker.jpg", "p12.jpg"}
expected = {}
for path in sorted(files.iterdir()):
    if path.suffix not in (".png", ".jpg", ".webp") or path.name in refused:
        continue
    image = ImageOps.exif_transpose(Image.open(path))
    if path.name == "cmyk_no_adobe.jpg":  # Pillow takes Adobe's inversion for granted; libvips and ImageMagick ask for Adobe's marker
        image = Image.fromarray(255 - np.asarray(image), "CMYK")
    grey = image.mode in ("1", "L", "LA", "I;16") or path.name.startswith("grey")
    if image.mode == "I;16":
        values = np.round(np.asarray(image) * (255 / 65535))
    elif image.mode in ("LA", "RGBA") or "transparency" in image.info:
        v = np.asarray(image.convert("RGBA")).astype(int)
        values = (v[..., :3] * v[..., 3:] + 127) // 255
    else:
        values = np.asarray(image.convert("L" if grey else "RGB"))
    values = values.reshape(*values.shape[:2], -1)
    expected[path.name] = (values[..., :1] if grey else values).astype(np.uint8)
np.savez_compressed(root / "expected.npz", **expected)
print(len(expected), "pictures,", sum(p.stat().st_size for p in root.rglob("*") if p.is_file()), "bytes")
