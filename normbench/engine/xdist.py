"""xdist's scheduler, with the longest runs first."""

from xdist.scheduler import LoadScheduling
from xdist.workermanage import WorkerController


class LongestFirstScheduling(LoadScheduling):
    """xdist's own LoadScheduling, until ``one_at_a_time`` is set, as there are cases to run.

    From then on tests are dealt out in the order in which they were collected, one at a time. A
    worker must know its next test before it begins one, so that two are always its own; to
    leave the long ones no short worker, the first round deals one each, and the second one in
    the opposite direction. Collection puts the longest first.
    """

    collection: list[str] | None
    one_at_a_time = False

    def schedule(self) -> None:
        if not self.one_at_a_time:
            super().schedule()
            return
        if self.collection is not None:
            for node in self.nodes:
                self.check_schedule(node)
            return
        if not self._check_nodes_have_same_collection():
            self.log("**Different tests collected, aborting run**")
            return
        collection: list[str] = next(iter(self.node2collection.values()))
        self.collection, self.pending[:] = collection, range(len(collection))
        for node in (*self.nodes, *reversed(self.nodes)):
            self._send_tests(node, 1)
        if not self.pending:
            for node in self.nodes:
                node.shutdown()

    def check_schedule(self, node: WorkerController, duration: float = 0) -> None:
        """Keep the worker at two tests."""
        if not self.one_at_a_time:
            super().check_schedule(node, duration)
            return
        if node.shutting_down:
            return
        if self.pending:
            self._send_tests(node, max(0, 2 - len(self.node2pending[node])))
        else:
            node.shutdown()
