"""Pictures that belong to others of the same name in a second folder."""

from pathlib import Path, PurePosixPath

from model.data.folders.dataset import Item
from model.data.folders.listing import Found, PictureFile, list_pictures, raise_first, require_folder
from model.data.folders.pictures import shown
from model.data.folders.splits import Draw, into_splits, split_folders
from model.errors import InputError


def paired_splits(
    data: Path, inputs: str, targets: str, draw: Draw
) -> tuple[dict[str, tuple[Item, ...]], list[Found], list[str]]:
    """The items of train, val and test, each of two files; and the files that were found, and notes for the user.

    Raises InputError where a folder is missing, a file of one has no partner in the other, or a split has no picture.
    """
    layout = f"a folder with {inputs} and {targets}, or with train, val and test that have both"
    require_folder(data, layout)
    folders, beside = split_folders(data)
    found: list[Found] = []
    items: dict[str, list[Item]] = {}
    for folder in folders:
        both = [PurePosixPath(folder, name) for name in (inputs, targets)]
        for one in both:
            require_folder(data / one, layout)
        of_inputs, of_targets = (list_pictures(data, str(one)) for one in both)
        found += [of_inputs, of_targets]
        items[folder] = _paired(data, both, of_inputs, of_targets)
    of_splits, drawn = into_splits(data, items, draw)
    return of_splits, found, [drawn, beside]


def _paired(data: Path, folders: list[PurePosixPath], inputs: Found, targets: Found) -> list[Item]:
    errors: list[InputError] = []
    first, second = (
        _by_stem(data, folder, found, errors) for folder, found in zip(folders, (inputs, targets), strict=True)
    )
    for stem in sorted(first.keys() ^ second.keys()):
        lone, other = (first[stem], folders[1]) if stem in first else (second[stem], folders[0])
        expected, hint = f"{shown(data / other / stem)} with any suffix", "Add it, or remove this one."
        errors.append(InputError(shown(data / lone.name), f"has no partner in {other}", expected, hint))
    raise_first(errors, data)
    return [Item((first[stem], second[stem])) for stem in sorted(first)]


def _by_stem(data: Path, folder: PurePosixPath, found: Found, errors: list[InputError]) -> dict[str, PictureFile]:
    stems: dict[str, PictureFile] = {}
    for picture in found.pictures:
        stem = str(PurePosixPath(picture.name).relative_to(folder).with_suffix(""))
        if stem in stems:
            problem = f"has the same name as {Path(stems[stem].name).name}"
            errors.append(InputError(shown(data / picture.name), problem, "one picture a name", "Remove one of them."))
        stems[stem] = picture
    return stems
