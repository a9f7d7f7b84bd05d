"""The table of docs/how-to/folders.md."""

from record import read


def folder_table() -> str:
    """Seconds and memory of the commands that read a folder, by its number of files."""
    result = read("folder")
    files = result["files"]
    steps = list(dict.fromkeys(step for found in files.values() for step in found if isinstance(found[step], dict)))
    lines = [f"| | {' | '.join(f'{int(size):,} files' for size in files)} |", "|---" * (len(files) + 1) + "|"]
    for step in steps:
        cells = [
            f"{found[step]['seconds']:.1f} s, {found[step]['peak_mib']:,} MiB" if step in found else ""
            for found in files.values()
        ]
        lines.append(f"| {step} | {' | '.join(cells)} |")
    sizes = " and ".join(f"{found['bytes'] / 1e6:.0f} MB" for found in files.values())
    return (
        "\n".join(lines) + f"\n\n{result['protocol']}; {sizes} of text; {result['machine']['cores']} cores of "
        f"{result['machine']['processor']}.\nMade by `uv run python benchmarks/folder.py`."
    )
