"""``python -m audit``: are the packages those of the lists?  With ``--advisories``: is a fixed fault known in one?"""

import argparse
import subprocess
import sys
from pathlib import Path

from audit.advisories import accepted, asked, judged
from audit.pins import installed, problems, public, unpinned

ROOT = Path(__file__).resolve().parent.parent
ACCEPTED = Path(__file__).with_name("accepted.txt")


def main() -> int:
    """Print what was checked and what is wrong; 0 where nothing is."""
    parser = argparse.ArgumentParser(prog="python -m audit", description=__doc__)
    parser.add_argument("--advisories", metavar="PIP_AUDIT", help="ask the advisories, with this pip-audit")
    parser.add_argument("--service", default="pypi", choices=("pypi", "osv"), help="whose advisories (default: pypi)")
    given = parser.parse_args()
    lists, have = sorted(ROOT.glob("requirements*.txt")), installed()
    wrong = problems(lists, have, needed=("requirements.txt",))
    check = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    wrong += check.stdout.strip().splitlines() if check.returncode else []
    names = ", ".join(file.name for file in lists)
    print(f"pins: {names}; {len(have)} packages are installed, {len(unpinned(lists, have))} of them in no list")
    if given.advisories:
        answer = asked(given.advisories, given.service, {name: public(version) for name, version in have.items()})
        told, known = judged(answer, accepted(ACCEPTED), len(have))
        print("\n".join(told))
        wrong += known
    else:
        print("advisories: not asked (make audit asks them)")
    print("\n".join(f"WRONG: {line}" for line in wrong) or "nothing is wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
