"""A question that tasks share: nobody is content with an answer to what was asked before it came."""

from itertools import count

import pytest
import trio
import trio.testing

from dualpool.questions import SharedQuestion


class Server:
    """Answers after a second, with the number of the question."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.is_there = True

    async def put(self) -> float | None:
        sent = trio.current_time()
        self.asked.append(sent)
        await trio.sleep(1)
        return sent if self.is_there else None


@pytest.fixture
def server() -> Server:
    return Server()


async def test_an_answer_counts_for_those_who_came_before_it_was_asked(autojump_clock: trio.testing.MockClock, server: Server) -> None:
    question = SharedQuestion()
    begin = trio.current_time()
    done: list[tuple[int, float]] = []

    async def log_in(number: int) -> None:
        await trio.sleep(number * 0.3)
        assert await question.ask(trio.current_time(), server.put)
        done.append((number, trio.current_time() - begin))

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(log_in, number)
    assert [asked - begin for asked in server.asked] == [0, 1, 2, 3]
    assert sorted(done) == [(0, 1), (1, 2), (2, 2), (3, 2), (4, 3), (5, 3), (6, 3), (7, 4)]
    assert await question.ask(begin + 2.5, server.put)
    assert len(server.asked) == 4


async def test_at_least_a_pause_is_between_two(autojump_clock: trio.testing.MockClock, server: Server) -> None:
    question = SharedQuestion(5)
    begin = trio.current_time()
    for _ in range(3):
        assert await question.ask(trio.current_time(), server.put)
    assert [asked - begin for asked in server.asked] == [0, 5, 10]


async def test_where_nobody_can_be_asked_all_learn_it_at_once(autojump_clock: trio.testing.MockClock, server: Server) -> None:
    question, server.is_there = SharedQuestion(), False
    begin = trio.current_time()
    answers: list[bool] = []

    async def log_in() -> None:
        answers.append(await question.ask(trio.current_time(), server.put))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(log_in)
    assert (answers, len(server.asked), trio.current_time() - begin) == ([False] * 4, 1, 1)
    server.is_there = True
    assert await question.ask(trio.current_time(), server.put)


@pytest.mark.parametrize("ended_by", ["cancelled", "failed"])
async def test_another_asks_when_the_first_one_is_ended(autojump_clock: trio.testing.MockClock, server: Server, ended_by: str) -> None:
    question, numbers = SharedQuestion(), count()

    async def put() -> float | None:
        if ended_by == "failed" and not next(numbers):
            await trio.sleep(0.5)
            raise OSError
        return await server.put()

    async def first() -> None:
        with trio.move_on_after(0.5 if ended_by == "cancelled" else 9):
            try:
                assert await question.ask(trio.current_time(), put)
            except OSError:
                assert ended_by == "failed"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        await trio.testing.wait_all_tasks_blocked()
        assert await question.ask(trio.current_time(), put)
