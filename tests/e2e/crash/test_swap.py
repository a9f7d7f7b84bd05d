"""One bundle takes the place of another while that is searched and changed."""

import itertools
import threading
from pathlib import Path

from freemvmt.data.documents import Document
from freemvmt.errors import UserError
from freemvmt.search.retriever import Retriever
from freemvmt.search.stores.local.store import replace_bundle

from bundles import MakeBundle


def test_a_bundle_that_takes_the_place_of_another_gets_none_of_its_changes(
    make_bundle: MakeBundle, tmp_path: Path
) -> None:
    """A writer of the old one, in the middle of its change, once wrote it into the new one."""
    place, writers = tmp_path / "bundle", 2
    make_bundle(place)
    over = threading.Event()
    failed: list[BaseException] = []

    def write(number: int) -> None:
        retriever = Retriever.load(place)
        try:
            for count in itertools.count():
                if over.is_set():
                    return
                retriever.add([Document(f"w{number}-{count}", "zebra")])
                assert retriever.search("zebra", 1, "bm25")
        except (UserError, AssertionError, ValueError, OSError) as error:
            failed.append(error)
        finally:
            retriever.close()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    for number in range(15):
        replace_bundle(make_bundle(tmp_path / f"next{number}"), place)
        retriever = Retriever.load(place)  # with every sum
        assert len(retriever) >= 1100
        retriever.close()
    over.set()
    for thread in threads:
        thread.join()
    assert failed == []
