//! Messages of extended queries.

use bytes::BytesMut;
use wire::pg::frontend;

/// `Parse` without types.
pub(crate) fn parse(out: &mut BytesMut, statement: &[u8], sql: &[u8]) {
    frontend::Parse {
        statement,
        sql,
        param_oids: vec![],
    }
    .encode(out)
    .unwrap();
}

/// `Bind` to the unnamed portal; values and results are text.
pub(crate) fn bind(out: &mut BytesMut, statement: &[u8], params: &[&[u8]]) {
    let params = params
        .iter()
        .map(|param| frontend::Param::text(Some(param)));
    frontend::Bind {
        portal: b"",
        statement,
        params: params.collect(),
        result_formats: vec![],
    }
    .encode(out)
    .unwrap();
}

/// `Execute` of the unnamed portal, for all of its rows.
pub(crate) fn execute(out: &mut BytesMut) {
    frontend::Execute {
        portal: b"",
        rows_max: 0,
    }
    .encode(out)
    .unwrap();
}
