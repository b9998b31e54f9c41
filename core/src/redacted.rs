//! `Debug` without secrets.

/// Implements `Debug` for types that hold a secret: the name of the type and `[redacted]`.
#[macro_export]
macro_rules! redacted {
    ($($name:ident),+) => {
        $(impl ::std::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(concat!(stringify!($name), " [redacted]"))
            }
        })+
    };
}

#[cfg(test)]
mod tests {
    struct Login(&'static str);

    crate::redacted!(Login);

    #[test]
    fn the_name_shows_and_the_secret_does_not() {
        let login = Login("hunter2");
        assert_eq!(format!("{login:?}"), "Login [redacted]");
        assert_eq!(login.0, "hunter2");
    }
}
