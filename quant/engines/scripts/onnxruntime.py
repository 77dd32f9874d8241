"""python run.py IMAGE: depth in metres, written beside it as .npy. Needs numpy, Pillow and onnxruntime."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

here = Path(__file__).parent
card = json.loads((here / "card.json").read_text())
size = card["input"]["shape"][-1]
picture = Image.open(sys.argv[1]).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
image = np.asarray(picture, np.float32) / 255
image = ((image - card["input"]["mean"]) / card["input"]["std"]).astype(np.float32).transpose(2, 0, 1)[None]
session = onnxruntime.InferenceSession(here / card["file"]["name"], providers=["CPUExecutionProvider"])
depth_m = session.run(None, {"image": image})[0][0, 0] * 10
np.save(Path(sys.argv[1]).with_suffix(".depth.npy"), depth_m)
print(f"{depth_m.min():.2f} to {depth_m.max():.2f} m")
