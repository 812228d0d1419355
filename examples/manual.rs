//! The code of `docs/manual`, which compiles and runs as doc tests. Nothing else is here.

#[cfg(doctest)]
macro_rules! chapters {
    ($($name:ident = $file:literal),* $(,)?) => {
        $(
            #[doc = include_str!(concat!("../docs/manual/", $file, ".md"))]
            mod $name {}
        )*
    };
}

#[cfg(doctest)]
chapters! {
    fallback = "fallback",
    getting_started = "getting-started",
    identities = "identities",
    limits = "limits",
    messages = "messages",
    operations = "operations",
    pools = "pools",
    requests = "requests",
    testing = "testing",
}

// Its code links msquic.
#[cfg(all(doctest, feature = "msquic"))]
chapters! { streams = "streams" }
