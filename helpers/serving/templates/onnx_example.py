"""A photo's classes with onnxruntime and Pillow alone: python example.py photo.jpg"""
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

here = Path(__file__).parent
resize, model = (onnxruntime.InferenceSession(here / f"{n}.onnx") for n in ("resize", "model"))
opened = Image.open(sys.argv[1])
if opened.mode not in ("RGB", "L", "CMYK") or opened.has_transparency_data:
    sys.exit("see `decoding` in description.json: this file has to be converted first")
photo = ImageOps.exif_transpose(opened).convert("RGB")
(pixels,) = resize.run(None, {"photo": np.asarray(photo)})
(answers,) = model.run(None, {"pixels": pixels[None]})
classes = json.loads((here / "description.json").read_text("utf-8"))["classes"]
for code in answers[0].argsort()[::-1][:5]:
    print(f"{answers[0][code]:.6f} {classes[code]}")
