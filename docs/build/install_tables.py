"""Tables of docs/install.md and docs/lite.md, from results/{install,lite}.json."""

from record import read


def pythons_table() -> str:
    """A row a Python: what was installed and tried, and its size."""
    found = read("install")
    lines = ["| Python | installed from | environment | without what only a GPU needs |", "|---|---|---|---|"]
    for version, one in found["pythons"].items():
        lines.append(f"| {version} | wheel, sdist | {_mb(one['bytes'])} | {_mb(one['without_cuda_bytes'])} |")
    lines += [f"| {version} | **did not run**: none could be had | | |" for version in found["missing"]]
    lines.append("")
    lines.append(
        f"Linux, with the extra `offline`. The wheel has {found['wheel_bytes'] / 1e3:,.0f} kB, the sdist "
        f"{found['sdist_bytes'] / 1e3:,.0f} kB. Made by `scripts/install`."
    )
    return "\n".join(lines)


def extras_table() -> str:
    """A row an extra: what it adds to the package alone."""
    found = read("install")
    lines = ["| extra | adds |", "|---|---|"]
    lines.append(f"| none | {_mb(found['base_bytes'])} in all |")
    lines += [f"| `{name}` | {_mb(one['bytes_more'])} |" for name, one in found["extras"].items()]
    return "\n".join(lines)


def lite_table() -> str:
    """Serving without PyTorch, beside other ways to serve."""
    found = read("lite")
    cold, answers = found["cold_start"], found["answers"]
    head = [
        "`two-towers serve`",
        "first answer, s",
        "times as long (range)",
        "of the cores, s",
        "memory until then, MiB",
    ]
    head += ["same ten best, of 200", "largest difference of a score"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name in cold:
        one, other = cold[name], answers.get(name)
        cells = [name, f"{one['seconds']:.2f}"]
        cells.append(
            "" if "range" not in one else f"{one['times_as_long']:.1f} ({one['range'][0]} to {one['range'][1]})"
        )
        cells += [f"{one['cpu']:.2f}", f"{one['peak_mib']:,}"]
        cells += [f"{other['same_top_10']}", f"{other['largest_difference']:.0e}"] if other else ["", ""]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    lines.append(
        f"{found['documents']:,} documents, {found['machine']['cores']} cores. "
        f"The environment has {_mb(found['environment']['bytes'])}. Made by `scripts/lite`."
    )
    return "\n".join(lines)


def _mb(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"
