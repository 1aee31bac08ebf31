"""Streams: rows of shards instead of numbered samples, each dealt and consumed exactly once an epoch. All pure.

- A *source* has numbered shards with rows; a shard's length is known when some worker has read it to its end.
- `ledger.StreamLedger` has the rows of the open epochs that resolved rounds consumed, and the lengths known so far.
- `deal.StreamDeal` is the small record that goes to all members; `spans.spans` computes a rank's pieces of shards.
- `walk.Walk` leads a reader through them, and finds out lengths on the way. It reads some spans in turn, and shuffles
  within windows.
- `consumption.consumed` computes from a cursor alone which rows the walk has delivered. `consumption.needed` says
  which lengths that takes.
- `parts.part` deals the epochs after the open one, where rounds go across epochs: lists follow each other, and a cursor
  goes through all of them.
- `row_count.RowCount` turns a number of samples that were stepped on into a cursor, whatever the transform.
- `mixture.Mixture` interleaves several sources by weight.

A re-deal costs at most what a death costs: reading open shards again. A rank reads rests of shards before whole ones,
so at any time about ranks × interleave shards are begun. With windows of W rows, the record of their scattered rows
takes about a quarter of a byte for each row of a half-consumed window.
"""
