"""PDF files of a few lines, written by hand."""

from collections.abc import Sequence


def pdf_of(
    pages: Sequence[str], title: str = "", bookmarks: Sequence[tuple[str, int]] = (), *, encrypted: bool = False
) -> bytes:
    """A PDF file with a line of text on each page. ``bookmarks`` are (title, page from 0)."""
    first_page, first_mark = 5, 5 + 2 * len(pages)
    kids = " ".join(f"{first_page + 2 * number} 0 R" for number in range(len(pages)))
    objects = {
        1: f"<< /Type /Catalog /Pages 2 0 R{' /Outlines 4 0 R' if bookmarks else ''} >>",
        2: f"<< /Type /Pages /Count {len(pages)} /Kids [{kids}] >>",
        3: "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    }
    if bookmarks:
        last = first_mark + len(bookmarks) - 1
        objects[4] = f"<< /Type /Outlines /First {first_mark} 0 R /Last {last} 0 R /Count {len(bookmarks)} >>"
    for number, text in enumerate(pages):
        page = first_page + 2 * number
        objects[page] = (
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents {page + 1} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        )
        stream = f"BT /F1 12 Tf 50 700 Td ({text}) Tj ET"
        objects[page + 1] = f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream"
    for number, (name, page) in enumerate(bookmarks):
        mark = first_mark + number
        following = f" /Next {mark + 1} 0 R" if number + 1 < len(bookmarks) else ""
        destination = f"[{first_page + 2 * page} 0 R /Fit]"
        objects[mark] = f"<< /Title ({name}) /Parent 4 0 R /Dest {destination}{following} >>"
    info, key = max(objects) + 1, max(objects) + 2
    objects[info] = f"<< /Title ({title}) >>"
    objects[key] = f"<< /Filter /Standard /V 1 /R 2 /P -4 /O <{'41' * 32}> /U <{'42' * 32}> >>"
    content, places = b"%PDF-1.4\n", {}
    for number in sorted(objects):
        places[number] = len(content)
        content += f"{number} 0 obj\n{objects[number]}\nendobj\n".encode()
    rows = "".join(
        f"{places[n]:010d} 00000 n \n" if n in places else "0000000000 65535 f \n" for n in range(max(objects) + 1)
    )
    lock = f" /Encrypt {key} 0 R /ID [<41> <41>]" if encrypted else ""
    trailer = f"trailer\n<< /Size {max(objects) + 1} /Root 1 0 R /Info {info} 0 R{lock} >>"
    return content + f"xref\n0 {max(objects) + 1}\n{rows}{trailer}\nstartxref\n{len(content)}\n%%EOF\n".encode()
