"""Stories: the real controller and the real members, driven by a few commands, told line by line."""

from __future__ import annotations

import json
import shlex

from story_shell import StoryShell, StoryWorker

from raysgd_local.algorithms.schedules import FixedPeriod
from raysgd_local.control.controller import events as c
from raysgd_local.control.controller.checkpoints import snapshot_of
from raysgd_local.control.controller.settings import CheckpointPolicy, Settings
from raysgd_local.control.controller.state import begin
from raysgd_local.control.member import events as m
from raysgd_local.control.messages import Evaluating
from raysgd_local.control.replicated.program import Program
from raysgd_local.simulation.engine.loop import LoopPlan


class Story(StoryShell):
    """Obeys a story's commands: `start`, `up`, `step`, and so on, each a method `do_…`."""

    def obey(self, line: str) -> str:
        """What one command brings about, as text."""
        words = shlex.split(line)
        quiet, words = words[0] == "quietly", words[words[0] == "quietly" :]
        options = dict(word.split("=") for word in words[1:] if "=" in word)
        names = [word for word in words[1:] if "=" not in word]
        getattr(self, f"do_{words[0]}")(*names, **options)
        self.settle()
        told = self.telling.take()
        return "" if quiet else told

    # Commands of a story.

    def do_start(
        self,
        workers,
        min=1,
        tau=2,
        samples=24,
        batch=2,
        epochs=1,
        every_epochs=0,
        every_s=0,
        alone="",
        quits="",
        **settings,
    ):
        """A run is asked for; no worker is there yet. Worker number `alone` evaluates, `quits` ends after an epoch."""
        policy = CheckpointPolicy(int(every_epochs) or None, float(every_s) or None)
        numbers = {name: int(value) for name, value in settings.items()}
        program = Program(FixedPeriod(int(tau)))
        self.settings = Settings(program, int(min), int(workers), checkpoints=policy, **numbers)
        odd = {"alone": tuple(map(int, alone)), "quits": tuple(map(int, quits))}
        self.plan = LoopPlan(int(epochs), int(samples), int(batch), evaluates=False, **odd)
        self.controller = begin(self.settings)
        self.tell(c.RunStarted())

    def do_up(self, *names):
        """Processes of requested workers run, their loops come to the first epoch."""
        for name in names:
            worker = self.workers[name] = StoryWorker(name, self.plan)
            self.tell(c.WorkerUp(name, f"node{name[1:]}", 1))
            self.later(lambda worker=worker: self.go_on(worker))

    def do_step(self, *names):
        """These workers' loops take one step each."""
        for name in names:
            self.step(self.workers[name])

    def do_round(self):
        """All loops take steps until each has committed one round more, or waits for something else."""
        known = {w.name: w.member.known.round for w in self.workers.values() if w.at_batch}
        while stepping := [w for w in self.batching() if w.member.known.round == known.get(w.name)]:
            for worker in stepping:
                self.step(worker)
            self.settle()

    def do_train(self):
        """All loops take steps until none can any more."""
        while stepping := self.batching():
            for worker in stepping:
                self.step(worker)
            self.settle()

    def do_withhold(self, *names):
        """The result of the next collective does not reach these members."""
        self.withheld |= set(names)

    def do_kill(self, *names):
        for name in names:
            self.end(name)
            self.tell(c.Died(name, "killed"))

    def do_raise(self, name, error):
        """User code raises; the process ends."""
        self.tell(c.UserError(name, error), name)
        self.end(name)

    def do_sigterm(self, name):
        self.workers[name].post(m.LeaveAsked())

    def do_interrupt(self):
        self.tell(c.StopRequested("interrupted"))

    def do_heartbeat(self, **silent_s):
        """The driver looks at the signs of life: all workers are heard but these, silent for so many seconds."""
        signs = (
            c.SignOfLife(name, float(silent_s.get(name, 0.1)), 0.25, w.view, 0.5, 0.0, self.evaluation(w))
            for name, w in self.workers.items()
        )
        self.tell(c.Heartbeat(tuple(signs), awake_s=60.0, hears_s=60.0))

    def evaluation(self, worker):
        """The evaluation that a worker waits in, as its heartbeat tells it."""
        if not isinstance(worker.call, m.Evaluate):
            return None
        return Evaluating(*worker.member.known.progress, since_s=self.now - worker.called_s)

    def do_advance(self, seconds):
        """Time passes, and timers run out."""
        self.now += float(seconds.rstrip("s"))
        for due, number in sorted(self.timers):
            if due <= self.now and number in self.controller.timers.values():
                self.tell(c.Timer(number))

    def do_write(self, *names, fails=""):
        """Parts of checkpoints are written; on worker `fails` that fails."""
        for worker in [self.workers[name] for name in names] or list(self.workers.values()):
            for checkpoint, rank in worker.copied:
                written = c.ShardWritten(checkpoint, worker.name, rank, f"{checkpoint}/{rank}", "", 1)
                failed = c.CheckpointFailed(checkpoint, "no space left on device")
                self.tell(failed if worker.name == fails else written, worker.name)
            worker.copied = []

    def do_damage(self, checkpoint):
        """A file of this checkpoint is not any more what was written."""
        self.damaged.add(checkpoint)

    def do_driver(self, dies):
        """The driver dies, its workers with it. Another one resumes from the newest checkpoint that stands."""
        for name in list(self.workers):
            self.end(name)
        newest = max(self.manifests.keys() - self.damaged)
        resume = snapshot_of(json.loads(self.manifests[newest]), self.settings.program.schedule)
        self.controller = begin(self.settings, resume)
        self.timers, self.cut = [], set()
        self.tell(c.RunStarted())
