"""Where float training is to start from, beside a checkpoint that leaves nothing to train."""

from grid.planning.plan import Plan
from grid.space.search_space import SearchSpace
from model.errors import InputError
from model.network.user_network import OWN

_KEY = "train.init"
_HINT = (
    "Use --checkpoint none to train the float network, train.init=checkpoint to fine-tune the checkpoint, or leave "
    "train.init out to quantize the checkpoint as it is."
)


def require_init_used(space: SearchSpace, plan: Plan, checkpoint: str) -> None:
    """Raise InputError for each ``train.init`` that was written down but from which no cell trains.

    So it is where a checkpoint holds the network: the cell takes its weights as they are, and two cells that differ
    in ``train.init`` alone would be one and the same. A value that only the cells of another network use is legal;
    networks of one's own (``build``) start from the weights that they bring, whatever it says.
    """
    cells = (*plan.cells, *plan.excluded)
    taken = [cell for cell in cells if _KEY not in cell.relevant]
    used = {
        cell.relevant[_KEY]
        for cell in cells
        if _KEY in cell.relevant and not str(cell.settings["network.encoder"]).startswith(OWN)
    }
    networks = ", ".join(dict.fromkeys(str(cell.settings["network.encoder"]) for cell in taken))
    void = [entry for entry in space.written if entry.key == _KEY and entry.value not in used]
    if taken and void:
        problem = f"trains nothing: the cells of {networks} start from {checkpoint}"
        raise InputError.all(entry.error(problem, "a start that a cell trains from", _HINT) for entry in void)
