//! Octets for each target: those in its folder below `__fuzz__`, and random ones. `README.md` says how to run one for longer.

use postroad_fuzz as fuzz;

macro_rules! targets {
    ($($name:ident),* $(,)?) => {$(
        #[test]
        fn $name() {
            bolero::check!().with_max_len(2048).for_each(|input: &[u8]| fuzz::$name(input));
        }
    )*};
}

targets! {
    address,
    bdat,
    capabilities,
    command,
    content,
    header,
    journal,
    proxy_header,
    record,
    reply,
    sasl,
    whole_session,
}
