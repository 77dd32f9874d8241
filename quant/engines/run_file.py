"""python run.py IMAGE: depth in metres, written beside it as .npy. Needs numpy, Pillow and the engine of card.json."""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

here = Path(__file__).parent
card = json.loads((here / "card.json").read_text())
size, file = card["input"]["shape"][-1], here / card["file"]["name"]
picture = Image.open(sys.argv[1]).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
image = np.asarray(picture, np.float32) / 255
image = ((image - card["input"]["mean"]) / card["input"]["std"]).astype(np.float32).transpose(2, 0, 1)[None]
if card["engine"]["name"] == "onnxruntime":
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    depth_m = session.run(None, {"image": image})[0][0, 0] * 10
else:
    import torch
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(file).load_method("forward")
    depth_m = method.execute((torch.from_numpy(image.copy()),))[0].numpy()[0, 0] * 10
np.save(Path(sys.argv[1]).with_suffix(".depth.npy"), depth_m)
print(f"{depth_m.min():.2f} to {depth_m.max():.2f} m")
