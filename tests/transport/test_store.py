"""What views leave in the run's store."""

from torch.distributed import PrefixStore, TCPStore

from raysgd_local.transport.store_clients import forget_views_before


def test_of_views_that_are_over_nothing_stays_in_the_store_and_all_else_does():
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    for view in range(1, 12):
        PrefixStore(f"run-ab/{view}", store).set("meet/0", "here")
        PrefixStore(f"run-ab/{view}/gloo", store).set("0", "address")
    PrefixStore("other-run-ab/1", store).set("meet/0", "here")
    forget_views_before(store, "run-ab", 10)
    kept = {f"run-ab/{view}/{key}" for view in (10, 11) for key in ("meet/0", "gloo/0")}
    assert set(store.list_keys()) == kept | {"other-run-ab/1/meet/0"}
