"""Which known faults do the installed packages have?  pip-audit asks; here its answer is judged."""

import json
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PATIENCE_S = 900


def asked(pip_audit: str, service: str, packages: Mapping[str, str]) -> list[dict[str, Any]] | str:
    """Return pip-audit's answer, one entry a package, or why there is none."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "installed.txt"
        wanted.write_text("".join(f"{name}=={version}\n" for name, version in sorted(packages.items())))
        command = [pip_audit, "-r", str(wanted), "--no-deps", "--disable-pip", "--vulnerability-service", service]
        command += ["--format", "json", "--progress-spinner", "off"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
            return json.loads(done.stdout)["dependencies"]
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{type(error).__name__}: {error}"
        except (ValueError, KeyError, TypeError):
            return (done.stderr.strip().splitlines() or ["no answer"])[-1]


def accepted(file: Path) -> dict[str, str]:
    """Reasons by advisory, of a list with lines ``ADVISORY reason``; raises ValueError for one without a reason."""
    found = {}
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if text := line.partition("#")[0].strip():
            name, _, reason = text.partition(" ")
            if not reason.strip():
                raise ValueError(f"{file.name}:{number}: {name} has no reason; expected ADVISORY reason")
            found[name] = reason.strip()
    return found


def judged(answer: list[dict[str, Any]] | str, reasons: Mapping[str, str], count: int) -> tuple[list[str], list[str]]:
    """What to tell, and what is wrong: faults that a newer version has not, unless there is a reason to keep them.

    That nobody answered is told and is not wrong: the network is no fault of the packages.
    """
    if isinstance(answer, str):
        return [f"advisories: NOT CHECKED, none of {count} packages: nobody answered ({answer})"], []
    unknown = [entry["name"] for entry in answer if "skip_reason" in entry]
    checked = len(answer) - len(unknown)
    told = [
        f"advisories: {checked} of {count} packages checked" if checked else f"advisories: NOT CHECKED, {count} unknown"
    ]
    if checked and unknown:
        told.append(f"  not known there, and NOT CHECKED: {', '.join(unknown)}")
    wrong, seen = [], set()
    for entry in answer:
        for fault in entry.get("vulns", []):
            names = [fault["id"], *fault.get("aliases", [])]
            what = f"{entry['name']} {entry['version']}: {' = '.join(names)}"
            reason = next((reasons[name] for name in names if name in reasons), None)
            seen.update(names)
            if reason is not None:
                told.append(f"  accepted: {what} ({reason})")
            elif fault["fix_versions"]:
                wrong.append(f"{what}, fixed in {', '.join(fault['fix_versions'])}")
            else:
                told.append(f"  no version without it yet: {what}")
    told += [f"  no longer needed in accepted.txt: {name}" for name in reasons if checked and name not in seen]
    return told, wrong
