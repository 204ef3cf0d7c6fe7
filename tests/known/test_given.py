"""What a request carries: pixels, and for other ranks only that there are some."""

import pickle

import torch

from kandinsky.known.given import Given, Mark


def test_ranks_that_do_not_encode_get_no_pixels():
    given = pickle.loads(pickle.dumps(Given.elsewhere()))  # noqa: S301  # our own, as ranks send it
    assert isinstance(given, Given)
    assert (given.head, given.last, given.video, given.anew) == (None, None, None, None)


def test_what_is_given_can_be_sent():
    given = Given(head=torch.ones(1, 8, 8, 3, dtype=torch.uint8), marks={"image": Mark(None, "ab")})
    sent = pickle.loads(pickle.dumps(given))  # noqa: S301  # as above
    assert torch.equal(sent.head, given.head)
    assert sent.marks == given.marks
