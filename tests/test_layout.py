"""The layout: a file is one idea on a few screens, a folder about a dozen files, and tests mirror the packages."""

import ast

from tests.import_graph import PACKAGES, ROOT, files, imports, product, syntax

MOST_LINES = 300
MOST_FILES = 14
OTHERS = ("benchmarks", "audit", "tests")
WHOLE = ("bad_input", "devices", "faults", "runner", "security")
"""Tests of the whole, and of runner.py; devices to measure on."""
OWN = {path.stem for path in (ROOT / "tests").rglob("*.py")} - {"__init__", "__main__", "conftest"}


def test_a_file_has_at_most_300_lines():
    lines = {file: len((ROOT / file).read_text().splitlines()) for file in (*product(), *files(*OTHERS))}
    assert {file: count for file, count in lines.items() if count > MOST_LINES} == {}


def test_a_folder_has_at_most_14_python_files():
    folders = {path.parent for name in (*PACKAGES, *OTHERS) for path in (ROOT / name).rglob("*.py")}
    full = {folder: len([file for file in folder.glob("*.py") if file.stem != "__init__"]) for folder in folders}
    assert {str(folder): count for folder, count in full.items() if count > MOST_FILES} == {}


def test_every_folder_of_tests_has_the_name_of_the_folder_that_it_tests():
    folders = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    assert {str(one) for one in folders if not (ROOT / one).is_dir()} == set(WHOLE)
    rooms = {path.parent.relative_to(ROOT) for name in PACKAGES for path in (ROOT / name).rglob("*.py")}
    untested = {str(one) for one in rooms - folders if list((ROOT / one).glob("[!_]*.py"))}
    assert untested <= {"grid/report/sections", "model/data/rooms"}, "tested by what they are parts of"


def test_helpers_are_imported_by_their_whole_name():
    short = {}
    for file in files("tests"):
        if names := {name.partition(".")[0] for name in imports(syntax(file))} & OWN:
            short[file] = names
        assert not any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(syntax(file))), file
    assert short == {}
