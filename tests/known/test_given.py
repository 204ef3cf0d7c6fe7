"""What a request carries: pixels, and for other ranks only that there are some."""

from kandinsky.known.given import Given


def test_ranks_that_do_not_encode_get_no_pixels():
    given = Given.elsewhere()
    assert isinstance(given, Given)
    assert (given.head, given.last, given.video, given.anew) == (None, None, None, None)
