"""What a trial may ask for."""

import pytest

from grid.scheduling.tune import Resources
from model.errors import InputError


@pytest.mark.parametrize(("asked", "value"), [({"cpus_per_trial": 0}, "0"), ({"cpus_per_trial": 4096}, "4096")])
def test_cpus_that_a_trial_could_never_get_are_refused(asked, value):
    with pytest.raises(InputError, match=rf"--cpus-per-trial: {value} CPUs are asked for; expected 1 to \d+"):
        Resources(**asked)


def test_a_share_of_a_gpu_below_nothing_is_refused():
    with pytest.raises(InputError, match=r"--gpus-per-trial: -0\.5"):
        Resources(gpus_per_trial=-0.5)


pytestmark = pytest.mark.timeout(300)
