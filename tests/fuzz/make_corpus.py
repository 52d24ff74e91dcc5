"""Writes seeds for the fuzzers: make_corpus.py OUT. Small files of each kind, sound ones and nearly sound ones."""
import gzip, io, json, pathlib, struct, sys, zipfile

out = pathlib.Path(sys.argv[1])


def put(target, name, data):
    (out / target).mkdir(parents=True, exist_ok=True)
    (out / target / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def safetensors(header, data=b""):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


for dtype, size in (("F32", 4), ("F64", 8), ("F16", 2), ("BF16", 2), ("I64", 8), ("U8", 1), ("BOOL", 1)):
    put("safetensors", dtype, safetensors({"__metadata__": {"a": "b"}, "x": {"dtype": dtype, "shape": [2, 3], "data_offsets": [0, 6 * size]}}, bytes(range(6 * size))))
put("safetensors", "weights", safetensors({"model.map_layer0.weight": {"dtype": "F32", "shape": [16, 4], "data_offsets": [0, 256]}}, bytes(256)))
put("safetensors", "outside", safetensors({"x": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}}, bytes(4)))
put("safetensors", "empty", safetensors({}))
for dtype in ("<f4", "<f8", "|u1", ">i2", "<i8"):
    for shape in ("(2, 2, 2)", "(3,)", "(1, 2, 2, 1)"):
        head = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
        put("arrays", f"{dtype[1:]}{len(shape)}", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + bytes(64))
put("arrays", "idx", bytes([0, 0, 8, 3]) + struct.pack(">III", 2, 3, 3) + bytes(18))
npy = (out / "arrays" / "u19").read_bytes()
npy = npy[: npy.index(b"\n") + 1] + bytes(range(8))  # as many bytes as (2, 2, 2) asks for
put("arrays", "npy", npy)
for name, method in (("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED)):
    to = io.BytesIO()
    with zipfile.ZipFile(to, "w", method) as z:
        z.writestr("images.npy", npy)
        z.writestr("labels.npy", npy)
    put("arrays", name, to.getvalue())
put("arrays", "gzip", gzip.compress((out / "arrays" / "idx").read_bytes(), mtime=0))
put("arrays", "idx_none", bytes([0, 0, 8, 4]) + struct.pack(">IIII", 0, 0x8A000060, 0x40000002, 0x10000000))  # no images, of 2^80 values
put("arrays", "cifar", bytes([7]) + bytes(3072))
index = {"format": "multistage images", "version": 1, "images": 5, "height": 4, "width": 3, "channels": 1, "values": "pictures", "images_per_shard": 2, "classes": 2,
         "class_names": ["a", "b"], "file_names": False, "shard_fingerprints": ["a", "b", "c"], "fingerprint": "d", "made": {}}
put("arrays", "index", json.dumps(index))
for key, value in (("images", 1 << 40), ("images", -1), ("images_per_shard", 0), ("height", 1e300), ("classes", 1 << 40), ("shard_fingerprints", {}), ("made", 1)):
    put("arrays", f"index_{key}_{value}"[:40].replace("/", "_"), json.dumps({**index, key: value}))
pictures = pathlib.Path(__file__).parent.parent / "data" / "pictures" / "files"
for path in pictures.iterdir():
    put("pictures", path.name, path.read_bytes())
for network in ("song_unet", "adm_unet", "ncsnpp", "ldm_unet"):
    put("configuration", network, json.dumps({"network": network, "resolution": 8, "channels": 1, "encoder_channels": 8, "channel_mult": [1, 2], "num_blocks": 1, "norm_groups": 2,
                                               "decoder_channels": [8, 4], "decoder_blocks": [1, 2], "decoder_attention": [["attn", "-"], ["-"]], "stage_boundaries": [0.5]}))
put("configuration", "autoencoder", json.dumps({"network": "autoencoder", "kind": "kl", "resolution": 16, "z_channels": 4, "embed_dim": 4}))
put("configuration", "list", "[0.5, 2.0]")
put("seeds", "list", "0-63,100")
put("seeds", "descends", "5-3")
for path in (out / "configuration").iterdir():
    put("training", path.name, path.read_bytes())
put("training", "labels", json.dumps({"network": "song_unet", "resolution": 4, "channels": 1, "encoder_channels": 8, "channel_mult": [1, 2], "num_blocks": 1, "label_dim": 3,
                                      "preconditioning": "VPPrecond", "sigma_data": 0.5, "decoder_channels": [8, 8], "stage_boundaries": [1.0]}))
training = json.dumps({"steps": 1, "images_seen": 4.0, "segment_updates": [1, 1, 1], "seed": 0, "batch_size": 4, "stage_images": [2.0, 2.0], "importance": []})
put("checkpoint", "sound", "\n\n")
put("checkpoint", "training", training + "\n\n")
put("checkpoint", "options", training.replace('"seed": 0', '"seed": 0, "rate_factor": 0.5, "options": {"learning_rate": 0.001, "average_stds": [0.1]}') + "\n\n")
put("checkpoint", "negative", training.replace('"steps": 1', '"steps": -1') + "\n\n")
put("checkpoint", "config", "\n" + json.dumps({"network": "song_unet", "resolution": 2, "channels": 1, "encoder_channels": 4, "channel_mult": [1], "num_blocks": 0, "attn_resolutions": [],
                                               "decoder_channels": [4, 4], "stage_boundaries": [1.0], "sigma_data": 0.5}) + "\n")
put("checkpoint", "edits", b"\n\n" + bytes(range(90)))
for name, table in (("plain", "file,label\na.png,cat\n"), ("quotes", '"a,""b"".png","1"\r\nb.png,2'), ("lines", '"a\nb",x\n\n\nc,y'), ("cut", 'a.png,"x')):
    put("labels", name, table)
put("labels", "edm", json.dumps({"labels": [["a.png", 3], ["b/a.png", 0]]}))
put("labels", "none", json.dumps({"labels": None}))
