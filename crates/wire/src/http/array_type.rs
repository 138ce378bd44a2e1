//! Which types are arrays, and of what.

/// The elements of an array type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element {
    /// Their type.
    pub type_oid: u32,
    /// What stands between them: `,` for all types but `box`, whose is `;`.
    pub delimiter: u8,
}

/// Tells the element of an array type that is not built in, as those of enums are, from its OID.
pub type ElementOf<'a> = &'a dyn Fn(u32) -> Option<Element>;

/// An [`ElementOf`] for whoever knows of no types but the built-in ones.
pub fn no_more_arrays(_type_oid: u32) -> Option<Element> {
    None
}

/// The element of an array type, built in or not.
pub(crate) fn element(type_oid: u32, more: ElementOf<'_>) -> Option<Element> {
    match BUILTIN.binary_search_by_key(&type_oid, |(array, _)| *array) {
        Ok(index) => {
            let type_oid = BUILTIN[index].1;
            let delimiter = if type_oid == BOX { b';' } else { b',' };
            Some(Element {
                type_oid,
                delimiter,
            })
        }
        Err(_) => more(type_oid),
    }
}

const BOX: u32 = 603;

/// `SELECT oid, typelem FROM pg_type WHERE typsubscript = 'array_subscript_handler'::regproc AND
/// oid < 10000 ORDER BY 1`, without `int2vector` and `oidvector`: their text is no array's.
#[rustfmt::skip]
const BUILTIN: [(u32, u32); 82] = [
    (143, 142), (199, 114), (210, 71), (270, 75), (271, 5069), (272, 81), (273, 83), (629, 628),
    (651, 650), (719, 718), (775, 774), (791, 790), (1000, 16), (1001, 17), (1002, 18), (1003, 19),
    (1005, 21), (1006, 22), (1007, 23), (1008, 24), (1009, 25), (1010, 27), (1011, 28), (1012, 29),
    (1013, 30), (1014, 1042), (1015, 1043), (1016, 20), (1017, 600), (1018, 601), (1019, 602),
    (1020, 603), (1021, 700), (1022, 701), (1027, 604), (1028, 26), (1034, 1033), (1040, 829),
    (1041, 869), (1115, 1114), (1182, 1082), (1183, 1083), (1185, 1184), (1187, 1186), (1231, 1700),
    (1263, 2275), (1270, 1266), (1561, 1560), (1563, 1562), (2201, 1790), (2207, 2202),
    (2208, 2203), (2209, 2204), (2210, 2205), (2211, 2206), (2287, 2249), (2949, 2970),
    (2951, 2950), (3221, 3220), (3643, 3614), (3644, 3642), (3645, 3615), (3735, 3734),
    (3770, 3769), (3807, 3802), (3905, 3904), (3907, 3906), (3909, 3908), (3911, 3910),
    (3913, 3912), (3927, 3926), (4073, 4072), (4090, 4089), (4097, 4096), (4192, 4191),
    (5039, 5038), (6150, 4451), (6151, 4532), (6152, 4533), (6153, 4534), (6155, 4535),
    (6157, 4536),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_known() {
        assert!(BUILTIN.is_sorted_by(|a, b| a.0 < b.0));
        let table = [
            (1007, Some(23)),
            (1009, Some(25)),
            (1016, Some(20)),
            (1231, Some(1700)),
            (1000, Some(16)),
            (1115, Some(1114)),
            (1185, Some(1184)),
            (3807, Some(3802)),
            (199, Some(114)),
            (1001, Some(17)),
            (2951, Some(2950)),
            (1182, Some(1082)),
            (25, None),
        ];
        for (array, expected) in table {
            assert_eq!(
                element(array, &no_more_arrays).map(|e| e.type_oid),
                expected
            );
        }
        assert_eq!(
            element(1020, &no_more_arrays),
            Some(Element {
                type_oid: 603,
                delimiter: b';'
            })
        );
        let more = |oid| {
            (oid == 16_400).then_some(Element {
                type_oid: 16_399,
                delimiter: b',',
            })
        };
        assert_eq!(element(16_400, &more).map(|e| e.type_oid), Some(16_399));
    }
}
