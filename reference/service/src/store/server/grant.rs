//! Role of roles on the schema, so that who writes rows cannot change it, and who reads sees nothing but the view.

use deadpool_postgres::Client;
use tokio_postgres::Error;

use super::classify::query_error;
use crate::store::{Role, StoreError};

/// In one transaction, what `name` had before taken away first: so it has exactly the rights of this role.
///
/// A server only warns where somebody gives what is not theirs to give, so it is looked at what came of it.
pub(super) async fn grant(client: &mut Client, role: Role, name: &str) -> Result<(), StoreError> {
    let (schema, given) = attempt(client, role, name).await.map_err(|error| query_error(&error))?;
    if given {
        Ok(())
    } else {
        Err(StoreError::Denied(format!("only the owner of schema {schema} and its tables can give rights on them")))
    }
}

/// Returns the schema, and whether the rights were given.
async fn attempt(client: &mut Client, role: Role, name: &str) -> Result<(String, bool), Error> {
    let transaction = client.transaction().await?;
    let schema: String = transaction.query_one("SELECT current_schema()::TEXT", &[]).await?.try_get(0)?;
    let (granted, last, right) = match role {
        Role::Writer => (include_str!("grant_write.sql"), "device_session", "DELETE"),
        Role::Reader => (include_str!("grant_read.sql"), "device_record", "SELECT"),
    };
    // Names of roles and schemas cannot be parameters of a statement.
    let text = [include_str!("revoke.sql"), granted].concat();
    let text = text.replace("{schema}", &identifier(&schema)).replace("{role}", &identifier(name));
    transaction.batch_execute(&text).await?;
    let look = include_str!("has_rights.sql");
    let given = transaction.query_one(look, &[&name, &schema, &last, &right]).await?.try_get(0)?;
    transaction.commit().await?;
    Ok((schema, given))
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::identifier;

    #[test]
    fn a_name_stays_a_name_whatever_is_in_it() {
        assert_eq!(identifier("dmp_reader"), "\"dmp_reader\"");
        assert_eq!(identifier("x\"; DROP TABLE device; --"), "\"x\"\"; DROP TABLE device; --\"");
    }
}
