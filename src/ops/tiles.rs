//! How matrix products are divided among the workgroups of a GPU.

use super::FEW_ROWS;
use cpu_kernels::ops::matmul::MatmulArgs;
use cpu_kernels::ops::matmul_add::MatmulAddArgs;
use cpu_kernels::ops::ternary_matmul_backward_input::TernaryMatmulBackwardInputArgs;
use cpu_kernels::ops::ternary_matmul_backward_weight::TernaryMatmulBackwardWeightArgs;

/// Side of the square tile of the result that a workgroup of 64 threads computes, as in `shaders/shared/gemm_tile.wgsl`.
pub(crate) const SMALL: u32 = 64;
/// The same for 256 threads. Such a tile reads each factor half as often.
pub(super) const LARGE: u32 = 128;
/// Fewer workgroups leave a large GPU idle: two for each of the 132 cores of an H100.
const WORKGROUPS: u32 = 264;
/// Workgroups among which a product is divided that is divided at all, so that few are idle at the end.
const DIVIDED: u32 = 3 * WORKGROUPS;
/// Elements of k that a part takes at least, so that adding up the parts takes little beside them.
const PART: u32 = 256;
/// The same where there would be fewer than [`WORKGROUPS`] otherwise.
const LEAST_PART: u32 = 64;
/// Most words of the parts' results together: 128 MiB, which every device can bind.
const SCRATCH: u64 = 32 << 20;

/// Whether a product is one of few rows of a times transposed b, as in decoding.
pub(super) fn is_few(a: MatmulArgs) -> bool {
    a.m <= FEW_ROWS && a.a_transposed == 0 && a.b_transposed != 0 && a.fast == 0
}

/// Workgroups that compute `cols` columns of `rows` rows sorted by expert in tiles of this side: as many as the experts' tiles can
/// be. None where tiles of the other side are wanted: fast products are `large`, since small tiles do not round.
pub(super) fn grouped(side: u32, large: bool, cols: u32, rows: u32, experts: u32) -> [u32; 3] {
    if (side == LARGE) == large { [cols.div_ceil(side), rows.div_ceil(side) + experts, 1] } else { [0; 3] }
}

/// The same for a matrix (rows, cols) of each expert.
pub(super) fn each_expert(side: u32, large: bool, [rows, cols]: [u32; 2], experts: u32) -> [u32; 3] {
    if (side == LARGE) == large { [cols.div_ceil(side), rows.div_ceil(side), experts] } else { [0; 3] }
}

/// A batch of matrix products (m, k) x (k, n).
#[derive(Clone, Copy)]
pub(crate) struct Product {
    m: u32,
    n: u32,
    k: u32,
    batch: u32,
    /// Whether tiles below the diagonal are those above it, mirrored.
    symmetric: bool,
    /// The only side that its tiles may have.
    only: Option<u32>,
}

/// The side of the tiles of fast products: small tiles do not round.
fn large_if(fast: u32) -> Option<u32> {
    (fast != 0).then_some(LARGE)
}

impl From<MatmulArgs> for Product {
    /// No product, where few rows are computed otherwise.
    fn from(a: MatmulArgs) -> Self {
        let batch = if is_few(a) { 0 } else { a.batch };
        Product { m: a.m, n: a.n, k: a.k, batch, symmetric: a.symmetric != 0, only: large_if(a.fast) }
    }
}

impl From<MatmulAddArgs> for Product {
    fn from(a: MatmulAddArgs) -> Self {
        Product { m: a.m, n: a.n, k: a.k, batch: a.batch, symmetric: a.symmetric != 0, only: None }
    }
}

impl From<TernaryMatmulBackwardInputArgs> for Product {
    fn from(a: TernaryMatmulBackwardInputArgs) -> Self {
        Product { m: a.rows, n: a.dim, k: a.outs, batch: 1, symmetric: false, only: large_if(a.fast) }
    }
}

impl From<TernaryMatmulBackwardWeightArgs> for Product {
    fn from(a: TernaryMatmulBackwardWeightArgs) -> Self {
        Product { m: a.outs, n: a.dim, k: a.rows, batch: 1, symmetric: false, only: large_if(a.fast) }
    }
}

impl Product {
    /// Workgroups that compute tiles of this side: in z, one for each part of k of each matrix. None when the other side suits
    /// the product.
    pub(crate) fn tiles(self, side: u32) -> [u32; 3] {
        if side == self.side() { self.grid(side) } else { [0; 3] }
    }

    /// Workgroups that add up parts: as many as compute them. None where a tile has one part.
    pub(crate) fn sums(self, side: u32) -> [u32; 3] {
        if self.parts(side) > 1 { self.tiles(side) } else { [0; 3] }
    }

    /// Words of the results of all parts.
    pub(crate) fn scratch(self) -> usize {
        let side = self.side();
        if self.parts(side) > 1 { (self.stored(side) * u64::from(self.parts(side))) as usize } else { 0 }
    }

    /// The same product in small tiles, whatever suits it.
    #[cfg(feature = "native")]
    pub(crate) fn small(self) -> Self {
        Product { only: Some(SMALL), ..self }
    }

    /// Whether a small tile would be at least half full along each of its sides, and along k.
    #[cfg(feature = "native")]
    pub(crate) fn fills_a_tile(self) -> bool {
        [self.m, self.n, self.k].iter().all(|n| *n >= SMALL / 2)
    }

    fn grid(self, side: u32) -> [u32; 3] {
        [self.n.div_ceil(side), self.m.div_ceil(side), self.batch * self.parts(side)]
    }

    /// Large tiles where they are full enough, and enough workgroups.
    fn side(self) -> u32 {
        let waste = self.stored(LARGE) * 8 > self.stored(SMALL) * 9;
        let workgroups = self.computed(LARGE) * u64::from(self.k / PART).max(1);
        let fitting = if waste || workgroups < u64::from(WORKGROUPS) { SMALL } else { LARGE };
        self.only.unwrap_or(fitting)
    }

    /// Words of whole tiles of one part of k.
    fn stored(self, side: u32) -> u64 {
        let [rows, cols] = [self.m, self.n].map(|n| u64::from(n.next_multiple_of(side)));
        rows * cols * u64::from(self.batch)
    }

    /// Tiles that are computed.
    fn computed(self, side: u32) -> u64 {
        let [rows, cols] = [self.m, self.n].map(|n| u64::from(n.div_ceil(side)));
        let each = if self.symmetric { rows * (rows + 1) / 2 } else { rows * cols };
        each * u64::from(self.batch)
    }

    /// Parts of k.
    fn parts(self, side: u32) -> u32 {
        let tiles = self.computed(side);
        if tiles == 0 || tiles >= u64::from(WORKGROUPS) {
            return 1;
        }
        let tiles = tiles as u32;
        let wanted = DIVIDED.div_ceil(tiles).min(self.k / PART);
        let needed = WORKGROUPS.div_ceil(tiles).min(self.k / LEAST_PART);
        let most = (SCRATCH / self.stored(side)) as u32;
        wanted.max(needed).min(most).max(1)
    }
}
