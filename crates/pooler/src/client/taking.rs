//! Portals whose client may have to send data, for `COPY … FROM STDIN`.

use bytes::Bytes;

/// Portals of one transaction by which data may be taken.
#[derive(Debug, Default)]
pub(super) enum Taking {
    #[default]
    None,
    One(Bytes),
    /// More than one: any may be.
    Some,
}

impl Taking {
    /// A portal is bound.
    pub(super) fn binds(&mut self, portal: &[u8], takes_data: bool) {
        let is_it = self.takes(portal);
        *self = match (std::mem::take(self), takes_data) {
            (Self::None, true) => Self::One(Bytes::copy_from_slice(portal)),
            (Self::One(_), true) if !is_it => Self::Some,
            (Self::One(_), false) if is_it => Self::None,
            (as_before, _) => as_before,
        };
    }

    /// Whether this one may.
    pub(super) fn takes(&self, portal: &[u8]) -> bool {
        match self {
            Self::None => false,
            Self::One(one) => one == portal,
            Self::Some => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_portal_that_is_bound_anew_is_another() {
        let mut taking = Taking::default();
        taking.binds(b"", false);
        assert!(!taking.takes(b""));
        taking.binds(b"", true);
        assert!(taking.takes(b"") && !taking.takes(b"a"));
        taking.binds(b"a", false);
        taking.binds(b"", true);
        assert!(taking.takes(b"") && !taking.takes(b"a"));
        taking.binds(b"", false);
        assert!(!taking.takes(b""));
        for portal in [b"a", b"b"] {
            taking.binds(portal, true);
        }
        taking.binds(b"a", false);
        assert!(taking.takes(b"a") && taking.takes(b"b"));
    }
}
