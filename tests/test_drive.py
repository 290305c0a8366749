"""The driver: it feeds ticks to a lifecycle, and knows when to stop and why."""

import pytest

from controller.drive import Driver
from metrics.errors import PlantRefusedError, PlantUnavailableError, StoreFailedError
from state.outcome import ExitCode


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def monotonic_s(self):
        return self.now_s

    def wall(self):
        return "never"


class Loop:
    """Each tick yields what `script` says next: a list of things seen, or an error."""

    def __init__(self, clock, *script, takes_s=1.0):
        self._clock, self._script, self._takes_s = clock, list(script), takes_s
        self.ticks = 0

    def tick(self):
        self.ticks += 1
        self._clock.now_s += self._takes_s
        step = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        if isinstance(step, Exception):
            raise step
        yield from step


def counting(ticks, taken):
    for _ in range(ticks):
        taken.append((yield))
    return len(taken)


def driver_of(loop, clock, lifecycle, *, unavailable_s=10.0, deadline_s=1000.0, ticked=lambda _: None):
    return Driver(loop, lifecycle, clock, unavailable_s=unavailable_s, deadline_s=deadline_s, ticked=ticked)


def test_it_runs_a_lifecycle_to_its_result():
    """Everything that is seen reaches the lifecycle in order, several ticks in one look included."""
    clock, taken = Clock(), []
    driver = driver_of(Loop(clock, ["a", "b"], [], ["c"], ["d"]), clock, counting(4, taken))
    driver.run_to_end()
    assert taken == ["a", "b", "c", "d"]
    assert driver.result == 4
    assert driver.error is None
    assert driver.done
    assert not driver.overdue


def test_a_plant_that_does_not_answer_is_given_up_after_its_time():
    """The plant's own error ends it, but only once it has been silent for longer than allowed."""
    clock, silence = Clock(), PlantUnavailableError("connection refused")
    loop = Loop(clock, ["a"], silence, takes_s=1.0)
    driver = driver_of(loop, clock, counting(9, []), unavailable_s=5.0)
    driver.run_to_end()
    assert driver.error is silence
    assert loop.ticks == 1 + 6
    assert driver.result is None


def test_a_plant_that_comes_back_in_time_is_forgiven():
    """Silence that ends within the allowed time changes nothing, however often it comes."""
    clock, gone = Clock(), PlantUnavailableError("gone")
    driver = driver_of(Loop(clock, gone, gone, ["a"], gone, gone, ["b"]), clock, counting(2, []), unavailable_s=2.5)
    driver.run_to_end()
    assert driver.result == 2
    assert driver.error is None


def test_a_plant_that_answers_without_a_new_tick_is_given_up_too():
    """A plant that stands still is as good as gone, and the error says so."""
    clock = Clock()
    driver = driver_of(Loop(clock, []), clock, counting(1, []), unavailable_s=5.0)
    driver.run_to_end()
    assert isinstance(driver.error, PlantUnavailableError)
    assert str(driver.error) == "the plant made no new tick for 5 s"


@pytest.mark.parametrize(
    "error",
    [
        PlantUnavailableError("the fault could not be injected"),
        PlantRefusedError("to inject", "no"),
        StoreFailedError("disk full"),
        ZeroDivisionError("a bug"),
    ],
)
def test_an_error_of_the_lifecycle_ends_it_at_once_and_is_kept(error):
    """Patience is for looking at the plant: what a check could not get from it must never pass for a result."""

    def lifecycle():
        yield
        raise error

    clock = Clock()
    driver = driver_of(Loop(clock, ["a"]), clock, lifecycle())
    driver.run_to_end()
    assert driver.error is error
    assert driver.done
    assert clock.now_s == 101.0


def test_an_error_of_the_loop_ends_it_at_once():
    """A decision that cannot be made durable is no matter of patience."""
    clock, failed = Clock(), StoreFailedError("disk full")
    driver = driver_of(Loop(clock, ["a"], failed), clock, counting(9, []))
    driver.run_to_end()
    assert driver.error is failed


@pytest.mark.parametrize("signal", [ExitCode.INTERRUPTED, ExitCode.TERMINATED])
def test_a_signal_ends_it_at_the_next_tick_without_another_look(signal):
    """After a stop was asked for, the plant is not touched again."""
    clock = Clock()
    loop = Loop(clock, ["a"])
    driver = driver_of(loop, clock, counting(9, []))
    driver.tick()
    driver.stop(signal)
    assert driver.stopping
    assert not driver.done
    driver.tick()
    assert driver.done
    assert driver.signal is signal
    assert driver.error is None
    assert loop.ticks == 1


def test_a_signal_before_the_first_tick_starts_nothing():
    """Stopped before it began, the lifecycle is never entered."""
    clock, taken = Clock(), []
    loop = Loop(clock, ["a"])
    driver = driver_of(loop, clock, counting(1, taken))
    driver.stop(ExitCode.TERMINATED)
    driver.run_to_end()
    assert loop.ticks == 0
    assert taken == []


def test_the_deadline_ends_it():
    """Once the wall time is used up it is over, without an error."""
    clock = Clock()
    loop = Loop(clock, ["a"], takes_s=4.0)
    driver = driver_of(loop, clock, counting(99, []), deadline_s=10.0)
    driver.run_to_end()
    assert driver.overdue
    assert driver.error is None
    assert loop.ticks == 3


def test_what_a_check_takes_is_not_the_plants_silence():
    """A check that keeps the loop busy for long does not make the plant look gone."""
    clock = Clock()

    def slow():
        yield
        clock.now_s += 60.0
        yield
        return "fine"

    driver = driver_of(Loop(clock, ["a"], ["b"]), clock, slow(), unavailable_s=5.0)
    driver.run_to_end()
    assert driver.result == "fine"


def test_ticks_after_the_end_do_nothing():
    """A schedule may tick once too often."""
    clock = Clock()
    loop = Loop(clock, ["a"])
    driver = driver_of(loop, clock, counting(1, []))
    driver.run_to_end()
    driver.tick()
    assert loop.ticks == 1
    assert driver.wait(timeout_s=0.0)


def test_it_tells_how_long_each_tick_took():
    """Every tick that went on is timed by the machine's clock."""
    clock, took_s = Clock(), []
    driver = driver_of(Loop(clock, ["a"], [], ["b"], takes_s=0.25), clock, counting(2, []), ticked=took_s.append)
    driver.run_to_end()
    assert took_s == [0.25, 0.25]
