//! Named points of the code at which a test may kill the agent, or let it panic. Only the feature `failpoints` compiles
//! them in.

/// Marks a point.
#[cfg(feature = "failpoints")]
macro_rules! fail_point {
    ($name:literal) => {
        fail::fail_point!($name)
    };
}

/// Marks a point: nothing.
#[cfg(not(feature = "failpoints"))]
macro_rules! fail_point {
    ($name:literal) => {};
}

pub(crate) use fail_point;
