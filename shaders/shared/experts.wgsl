// Which expert a tile of rows is of, where rows are sorted by expert. The op that imports this has `starts`, (experts + 1).

// The expert of a tile, the first of its rows, the one behind the last of its expert, and whether there is such a tile.
struct Tile { expert: u32, first: u32, end: u32, exists: bool }

// Tile `i`, where the rows of each expert are cut into tiles of `side` rows.
fn find_tile(i: u32, side: u32, experts: u32) -> Tile {
    var before = 0u;
    for (var e = 0u; e < experts; e++) {
        let first = starts[e];
        let tiles = (starts[e + 1u] - first + side - 1u) / side;
        if i - before < tiles {
            return Tile(e, first + (i - before) * side, starts[e + 1u], true);
        }
        before += tiles;
    }
    return Tile(0u, 0u, 0u, false);
}
