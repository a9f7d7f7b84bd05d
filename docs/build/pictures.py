"""The pictures of docs/explanation.md, drawn as SVG: `uv run python docs/build/pictures.py` writes docs/images/.

Those of the towers and of the loss are drawings; the chart's figures are those of results/recurrent_variants.json.
"""

import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from record import read

IMAGES = Path(__file__).parent.parent / "images"
INK, SOFT, LINE = "#24292e", "#5b646c", "#c3c9ce"
OURS, PALE, WARM, FAINT = "#1f6f6b", "#d7eae8", "#b4552d", "#f6e3da"
WHITE = "#ffffff"


class Picture:
    """Shapes on a white card; ``svg`` is the file."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self._size, self._title, self._parts = (width, height), title, [""]

    def box(
        self, x: float, y: float, width: float, height: float, fill: str = WHITE, edge: str = LINE, round: int = 4
    ) -> None:
        """A rectangle with round corners."""
        self._add(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{round}" '
            f'fill="{fill}" stroke="{edge}"/>'
        )

    def text(
        self,
        x: float,
        y: float,
        words: str,
        color: str = INK,
        size: float = 13,
        anchor: str = "middle",
        bold: int = 400,
    ) -> None:
        """Words on a line whose foot is at ``y``."""
        self._add(
            f'<text x="{x:g}" y="{y:g}" fill="{color}" font-size="{size:g}" text-anchor="{anchor}" '
            f'font-weight="{bold}">{escape(words)}</text>'
        )

    def arrow(self, x1: float, y1: float, x2: float, y2: float, color: str = SOFT, both: bool = False) -> None:
        """A line with a head, or with two."""
        start = ' marker-start="url(#head)"' if both else ""
        self._add(
            f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{color}" stroke-width="1.4" '
            f'marker-end="url(#head)"{start}/>'
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, color: str = LINE, dash: str = "none") -> None:
        """A line."""
        self._add(f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{color}" stroke-dasharray="{dash}"/>')

    def dot(self, x: float, y: float, radius: float, fill: str, edge: str) -> None:
        """A circle."""
        self._add(f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{fill}" stroke="{edge}" stroke-width="1.4"/>')

    def stack(self, x: float, y: float, count: int, fill: str) -> None:
        """A vector: ``count`` small cells in a row."""
        for number in range(count):
            self.box(x + 11 * number, y, 11, 14, fill, OURS, round=1)

    def _add(self, part: str) -> None:
        self._parts.append(part)

    def svg(self) -> str:
        """The file."""
        width, height = self._size
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img" font-family="system-ui, sans-serif">\n<title>{escape(self._title)}</title>\n'
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            f'orient="auto-start-reverse"><path d="M0 0L8 4L0 8z" fill="{SOFT}"/></marker></defs>\n'
            f'<rect width="{width}" height="{height}" rx="8" fill="{WHITE}"/>'
        )
        return head + "\n".join(self._parts) + "\n</svg>\n"


def towers() -> str:
    """Texts become ids, rows of one table, an average, a vector; a cosine joins the two sides."""
    picture = Picture(720, 430, "A query tower and a document tower over one token table")
    sides = (
        ("query tower", 20, ("how", "tall", "is", "the", "tower")),
        ("document tower", 380, ("it", "is", "300", "metres", "high")),
    )
    for name, left, words in sides:
        middle = left + 160
        picture.text(middle, 412, " ".join(words), INK, 14)
        picture.arrow(middle, 394, middle, 372)
        for number, word in enumerate(words):
            x = left + 6 + 62 * number
            picture.box(x, 342, 58, 26, PALE, OURS)
            picture.text(x + 29, 360, word, INK, 12)
            picture.arrow(x + 29, 340, x + 29, 296)
            picture.stack(x + 1.5, 208, 5, PALE)
            picture.arrow(x + 29, 204, middle + (x + 29 - middle) * 0.35, 170)
        picture.box(left + 10, 136, 300, 32, WHITE, OURS)
        picture.text(middle, 157, f"{name}: the average, at length 1", INK, 13)
        picture.arrow(middle, 134, middle, 112)
        picture.stack(middle - 55, 94, 10, OURS)
    picture.box(20, 264, 680, 30, FAINT, WARM)
    picture.text(360, 284, "one token table, shared by both towers: 30,522 rows of 384 numbers", INK, 13)
    for _, left, words in sides:
        for number in range(len(words)):
            x = left + 35 + 62 * number
            picture.arrow(x, 262, x, 226)
    picture.box(290, 18, 140, 34, OURS, OURS)
    picture.text(360, 40, "cosine", WHITE, 14, bold=600)
    picture.arrow(180, 90, 286, 46)
    picture.arrow(540, 90, 434, 46)
    return picture.svg()


def loss() -> str:
    """Left, what a triplet asks for; right, the cosines of a batch and what is the negative of each query."""
    picture = Picture(720, 350, "The triplet loss, and where its negatives come from")
    picture.text(20, 28, "one triplet, by distance 1 - cosine", OURS, 14, "start", 600)
    for y, near, far, said in (
        (90, 70, 120, "too near: pushed away, loss > 0"),
        (215, 70, 235, "beyond the margin: loss 0"),
    ):
        picture.line(40, y, 320, y)
        picture.dot(40, y, 7, OURS, OURS)
        picture.text(40, y + 26, "query", INK, 12)
        picture.dot(40 + near, y, 7, PALE, OURS)
        picture.text(40 + near, y + 26, "answer", INK, 12)
        picture.box(40 + near + 8, y - 7, 92, 14, FAINT, WARM)
        picture.text(40 + near + 54, y - 15, "margin", WARM, 12)
        picture.dot(40 + far, y, 7, WHITE, WARM)
        picture.text(40 + far + 10, y + 26, "negative", INK, 12)
        picture.text(40, y + 52, said, SOFT, 12, "start")
    picture.text(40, 318, "max(0, margin + (1 - cos(q, p)) - (1 - cos(q, n)))", INK, 12.5, "start")
    picture.text(390, 28, "the cosines of a batch", OURS, 14, "start", 600)
    hardest, known = {0: 3, 1: 4, 2: 0, 3: 5, 4: 1, 5: 3}, {(1, 2), (2, 1)}
    for row in range(6):
        picture.text(424, 92 + 36 * row, f"q{row + 1}", INK, 12)
        picture.text(458 + 36 * row, 64, f"p{row + 1}", INK, 12)
        for column in range(6):
            x, y = 441 + 36 * column, 71 + 36 * row
            if row == column:
                picture.box(x, y, 33, 33, OURS, OURS)
                picture.text(x + 16.5, y + 22, "+", WHITE, 16)
            elif (row, column) in known:
                picture.box(x, y, 33, 33, "#eef0f2", LINE)
                picture.line(x + 7, y + 26, x + 26, y + 7, SOFT)
            elif hardest[row] == column:
                picture.box(x, y, 33, 33, FAINT, WARM)
                picture.text(x + 16.5, y + 22, "−", WARM, 18, bold=600)
            else:
                picture.box(x, y, 33, 33)
    for x, fill, edge, said in (
        (400, OURS, OURS, "answer"),
        (484, FAINT, WARM, "hardest"),
        (572, "#eef0f2", LINE, "known: left out"),
    ):
        picture.box(x, 306, 14, 14, fill, edge)
        picture.text(x + 20, 318, said, INK, 12, "start")
    return picture.svg()


def weights() -> str:
    """Two ways to use what a recurrence has read: one number for each token, or its states as the vector."""
    picture = Picture(720, 330, "A recurrence that weighs, beside one whose states are the vector")
    words, heights = ("how", "tall", "is", "the", "tower"), (12, 30, 8, 8, 34)
    for left, name, said in (
        (20, "weights", "sum of w x / sum of w: still rows of the table"),
        (380, "states", "mean, largest or last state: no rows any more"),
    ):
        picture.text(left + 4, 28, name, OURS, 14, "start", 600)
        for number, (word, height) in enumerate(zip(words, heights, strict=True)):
            x = left + 6 + 62 * number
            picture.text(x + 29, 316, word, INK, 12)
            picture.box(x + 4, 272, 50, 24, PALE, OURS)
            picture.text(x + 29, 289, "x", INK, 13)
            picture.arrow(x + 29, 270, x + 29, 240)
            picture.box(x + 4, 212, 50, 24, FAINT, WARM)
            picture.text(x + 29, 229, "h", INK, 13)
            if number:
                picture.arrow(x - 7, 224, x + 3, 224, both=True)
            picture.arrow(x + 29, 210, x + 29, 184)
            if name == "weights":
                picture.box(x + 20, 180 - height, 18, height, WARM, WARM)
            else:
                picture.stack(x + 7, 166, 4, FAINT)
            picture.arrow(x + 29, 138, left + 160 + (x + 29 - left - 160) * 0.35, 92)
        picture.box(left + 10, 58, 300, 30, WHITE, OURS)
        picture.text(left + 160, 78, said, INK, 12.5)
    picture.text(24, 130, "w", WARM, 13, "start", 600)
    return picture.svg()


def variants() -> str:
    """NDCG@10 of each recurrence less the average's, on the test queries of qa and on those of TREC DL 2019."""
    result = read("recurrent_variants")
    names = [name for name in result["variants"] if not name.startswith("average")]
    picture = Picture(720, 92 + 30 * len(names), "What each recurrence gains or loses against the average")
    columns = (("qa", "qa test", 340, 800.0), ("msmarco-dl19", "msmarco-dl19", 575, 800.0))
    picture.text(20, 28, "NDCG@10 less that of the average", OURS, 14, "start", 600)
    bottom = 60 + 30 * len(names)
    for collection, title, zero, scale in columns:
        picture.text(zero, 48, title, INK, 13, bold=600)
        picture.line(zero, 56, zero, bottom, SOFT)
        found = result["collections"][collection]
        for place, name in enumerate(names):
            gain, y = found[name]["ndcg@10"] - found["average"]["ndcg@10"], 62 + 30 * place
            width = abs(gain) * scale
            sure = found[name]["minus_average"]["p_value"] < 0.05
            color = OURS if gain >= 0 else WARM
            pale = PALE if gain >= 0 else FAINT
            picture.box(zero if gain >= 0 else zero - width, y, width, 18, color if sure else pale, color)
            side = 1 if gain >= 0 else -1
            picture.text(zero + side * (width + 6), y + 14, f"{gain:+.3f}".replace("-", "−"), INK, 12, _anchor(side))
    for place, name in enumerate(names):
        picture.text(20, 76 + 30 * place, name, INK, 12.5, "start")
    picture.text(
        20, bottom + 20, "full colour: p < 0.05; the upper ones weigh, the lower ones use states", SOFT, 12, "start"
    )
    return picture.svg()


def _anchor(side: int) -> str:
    return "start" if side > 0 else "end"


def drawn() -> dict[str, str]:
    """Every picture, by the name of its file."""
    return {"two-towers.svg": towers(), "loss.svg": loss(), "weights.svg": weights(), "variants.svg": variants()}


def main(argv: Sequence[str] = ()) -> None:
    """Write them."""
    for name, text in drawn().items():
        (IMAGES / name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"wrote {IMAGES / name}\n")


if __name__ == "__main__":
    main()
