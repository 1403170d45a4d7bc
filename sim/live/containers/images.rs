//! Which image each server is: pinned, and each replaced by an environment variable.

/// An image that a server is started from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Image {
    /// What it is, in words.
    pub(super) what: &'static str,
    /// The environment variable that names another one, `NAME:TAG`.
    pub(super) variable: &'static str,
    default: (&'static str, &'static str),
}

pub(super) const MOSQUITTO: Image =
    Image { what: "Mosquitto", variable: "FLEETPROOF_IMAGE_MOSQUITTO", default: ("eclipse-mosquitto", "2.0.22") };

pub(super) const KAFKA: Image =
    Image { what: "Kafka", variable: "FLEETPROOF_IMAGE_KAFKA", default: ("apache/kafka", "4.1.0") };

pub(super) const POSTGRES: Image =
    Image { what: "PostgreSQL", variable: "FLEETPROOF_IMAGE_POSTGRES", default: ("postgres", "17.6") };

pub(super) const COCKROACH: Image = Image {
    what: "CockroachDB",
    variable: "FLEETPROOF_IMAGE_COCKROACH",
    default: ("cockroachdb/cockroach", "v25.2.5"),
};

impl Image {
    /// Name and tag, by the environment or by default.
    pub(super) fn name_and_tag(&self) -> (String, String) {
        let named = std::env::var(self.variable).ok().filter(|name| !name.is_empty());
        named.map_or_else(|| (self.default.0.to_owned(), self.default.1.to_owned()), |name| split(&name))
    }
}

/// `NAME:TAG`; a colon before a slash is of a registry's port. Without a tag, `latest`.
fn split(name: &str) -> (String, String) {
    match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name.to_owned(), tag.to_owned()),
        Some(_) | None => (name.to_owned(), "latest".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn an_image_is_named_with_or_without_a_tag_and_a_registry() {
        let parts = |name, tag: &str| (String::from(name), tag.to_owned());
        assert_eq!(split("postgres:16"), parts("postgres", "16"));
        assert_eq!(split("postgres"), parts("postgres", "latest"));
        assert_eq!(split("registry.example:5000/postgres"), parts("registry.example:5000/postgres", "latest"));
        assert_eq!(split("registry.example:5000/postgres:16"), parts("registry.example:5000/postgres", "16"));
    }
}
