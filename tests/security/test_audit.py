"""The audit of packages: what is pinned is exact and installed, and a known fault is told apart from silence."""

import sys

import pytest

from audit.advisories import accepted, asked, judged
from audit.pins import installed, problems, public, unpinned


def lists(folder, text):
    file = folder / "requirements.txt"
    file.write_text(text)
    return [file]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("torch>=2", "'torch>=2' is no exact version"),
        ("torch", "'torch' is no exact version"),
        ("torch==2.*", "is no exact version"),
        ("git+https://host/torch", "is no exact version"),
        ("--index-url https://host", "is no exact version"),
        ("torch==2.16.0", "torch is installed as 2.15.0+cpu; expected 2.16.0"),
        ("missing==1.0", "missing is not installed"),
    ],
)
def test_a_line_that_is_not_what_is_installed_is_named(tmp_path, line, message):
    (found,) = problems(lists(tmp_path, f"# ours\n{line}\n"), {"torch": "2.15.0+cpu"}, ("requirements.txt",))
    assert found.startswith("requirements.txt:2: ")
    assert message in found


def test_a_list_that_is_not_needed_may_be_not_installed(tmp_path):
    files = lists(tmp_path, "Foo_Bar[x]==1.0  # why\ntorch==2.15.0\nother==3\n")
    have = {"foo-bar": "1.0", "torch": "2.15.0+cpu", "idna": "3"}
    assert problems(files, have, ()) == []
    assert unpinned(files, have) == ["idna"]
    assert public("2.15.0+cpu") == "2.15.0"
    assert "pytest" in installed()


FAULT = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["2.0"], "description": "bad"}


def answer(*faults):
    return [{"name": "a", "version": "1.0", "vulns": list(faults)}, {"name": "b", "version": "1", "vulns": []}]


def test_a_known_fault_that_a_newer_version_has_not_is_wrong():
    assert judged(answer(FAULT), {}, 2)[1] == ["a 1.0: PYSEC-1 = CVE-1, fixed in 2.0"]


@pytest.mark.parametrize("name", ["PYSEC-1", "CVE-1"])
def test_a_fault_is_accepted_by_any_of_its_names_with_the_reason_shown(name):
    told, wrong = judged(answer(FAULT), {name: "not reached here"}, 2)
    assert wrong == []
    assert "not reached here" in told[1]


def test_a_fault_without_a_better_version_is_told_and_not_wrong():
    told, wrong = judged(answer({**FAULT, "fix_versions": []}), {}, 2)
    assert wrong == []
    assert "no version without it yet: a 1.0: PYSEC-1" in told[1]


def test_a_reason_that_nothing_needs_any_more_is_told():
    assert "no longer needed in accepted.txt: CVE-9" in judged(answer(), {"CVE-9": "why"}, 2)[0][1]


def test_packages_that_the_service_does_not_know_are_never_called_checked():
    skipped = [{"name": name, "skip_reason": "not found"} for name in ("a", "b")]
    assert judged(skipped, {}, 2) == (["advisories: NOT CHECKED, 2 unknown"], [])
    told, _ = judged([*answer(), *skipped[:1]], {}, 3)
    assert told == ["advisories: 2 of 3 packages checked", "  not known there, and NOT CHECKED: a"]


def test_an_accepted_fault_needs_a_reason(tmp_path):
    file = tmp_path / "accepted.txt"
    file.write_text("# none\nCVE-1 never called here\n")
    assert accepted(file) == {"CVE-1": "never called here"}
    file.write_text("CVE-1\n")
    with pytest.raises(ValueError, match=r"accepted.txt:1: CVE-1 has no reason"):
        accepted(file)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            "print(json.dumps({'dependencies': [{'name': open(sys.argv[2]).read(), 'vulns': []}]})); sys.exit(1)",
            "a==1\n",
        ),
        ("print('no route to host', file=sys.stderr); sys.exit(1)", "no route to host"),
        ("sys.exit(1)", "no answer"),
    ],
)
def test_what_pip_audit_says_is_an_answer_or_a_reason(tmp_path, body, expected):
    program = tmp_path / "pip-audit"
    program.write_text(f"#!{sys.executable}\nimport json, sys\n{body}\n")
    program.chmod(0o755)
    found = asked(str(program), "pypi", {"a": "1"})
    assert (found if isinstance(found, str) else found[0]["name"]) == expected


def test_no_pip_audit_is_a_reason_as_well(tmp_path):
    assert "FileNotFoundError" in asked(str(tmp_path / "none"), "pypi", {"a": "1"})
    assert judged("gone", {}, 3) == (["advisories: NOT CHECKED, none of 3 packages: nobody answered (gone)"], [])
