"""The model file that MLflow keeps beside every int8 network: inputs as the task's data have them in, answers out.

MLflow copies this file and the packages ``model`` and ``quant`` into the logged model ("models from code"),
so it loads without a checkout. Nothing of ours is imported before the network is loaded.
"""

from pathlib import Path
from typing import Any

import mlflow.models
import numpy as np
import torch
from mlflow.pyfunc.model import PythonModel, PythonModelContext

BATCH_SIZE = 16


class NetworkModel(PythonModel):
    """An int8 network of any task, ours or one built by the file logged beside it, behind MLflow's ``predict``."""

    def load_context(self, context: PythonModelContext) -> None:
        """Rebuild the network from the logged folder; the files logged beside it, a network's and a task's, are run."""
        from model.network.user_network import register_network, run_file
        from quant.artifact import load_network, read_form

        if "source" in context.artifacts:
            register_network(Path(context.artifacts["source"]))
        folder = Path(context.artifacts["network"])
        self.network, self.spec = load_network(folder).eval(), read_form(folder).network
        self.dtype = np.dtype((context.model_config or {}).get("dtype", "uint8"))
        self.postprocess = None
        if "task" in context.artifacts:
            _, module = run_file(Path(context.artifacts["task"]), "task", "It was logged with the model.")
            self.postprocess = module.postprocess

    def predict(self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None) -> Any:
        """Return the answers to inputs [N,C,H,W], uint8 (RGB of the built-in tasks), or float32 of some own tasks.

        Depth: metres, float32 [N,1,S/4,S/4]. Classification: probabilities, float32 [N,classes]. Segmentation: the
        class of each pixel, uint8 [N,H,W]. Restoration: RGB, uint8 [N,3,H,W]. Of a task of the user's own: what
        ``postprocess(outputs)`` of its file makes of the outputs, else these; several are a dict by name, those of a
        tuple output_0 and so on.
        """
        from model.images import to_network
        from model.tasks.answers import answer
        from model.tasks.nested import joined

        inputs, channels = np.asarray(model_input), self.spec.shape[0]
        if inputs.dtype != self.dtype or inputs.ndim != 4 or inputs.shape[1] != channels:
            expected = f"{self.dtype} [N,{channels},H,W]" + (", 0 to 255" if self.dtype == np.uint8 else "")
            raise ValueError(f"inputs: got {inputs.dtype} {inputs.shape}; expected {expected}")
        with torch.inference_mode():
            parts = [
                self.network(to_network(torch.from_numpy(inputs[start : start + BATCH_SIZE].copy())))
                for start in range(0, len(inputs), BATCH_SIZE)
            ]
            outputs = joined(parts)
            found = answer(self.spec.task, outputs) if self.postprocess is None else self.postprocess(outputs)
        return _arrays(found)


def _arrays(found: Any) -> Any:
    """Tensors as arrays, those of a tuple by name; whatever else a ``postprocess`` gives stays."""
    from model.tasks.nested import named

    values: dict[str, Any] = named(found)
    if not all(isinstance(value, torch.Tensor | np.ndarray) for value in values.values()):
        return found
    arrays = {name: value.numpy() if isinstance(value, torch.Tensor) else value for name, value in values.items()}
    return arrays[""] if arrays.keys() == {""} else arrays


mlflow.models.set_model(NetworkModel())
