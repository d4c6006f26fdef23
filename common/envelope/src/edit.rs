/// One change of the header, applied in order when the content is read.
///
/// Fields are held complete (`Name: value` with folding and CRLF at the end), as octets, since a foreign header need not
/// be UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HeaderEdit {
    /// Adds a whole field.
    Add {
        /// Where it goes.
        place: EditPlace,
        /// The field with its CRLF.
        field: Vec<u8>,
    },
    /// Removes the `occurrence`th field of that name, counted from the top of the client's header (0 is the first); none: all.
    Remove {
        /// Field name, any case.
        name: String,
        /// Which one.
        occurrence: Option<u32>,
    },
}

/// Where an added field goes. Fields at the top stand in the order Return-Path, Delivered-To,
/// Authentication-Results, Received (ours), then the client's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EditPlace {
    /// Above all that is there when the edit is applied.
    Top,
    /// Below the last field of the client's header.
    Bottom,
}
