//! Role of roles on the schema, so that who writes rows cannot change it, and who reads sees nothing but the view.

use deadpool_postgres::Client;
use tokio_postgres::Error;

use super::classify::query_error;
use crate::store::{Role, StoreError};

/// In one transaction, what `name` had before taken away first: so it has exactly the rights of this role.
pub(super) async fn grant(client: &mut Client, role: Role, name: &str) -> Result<(), StoreError> {
    attempt(client, role, name).await.map_err(|error| query_error(&error))
}

async fn attempt(client: &mut Client, role: Role, name: &str) -> Result<(), Error> {
    let transaction = client.transaction().await?;
    let schema: String = transaction.query_one("SELECT current_schema()::TEXT", &[]).await?.try_get(0)?;
    let granted = match role {
        Role::Writer => include_str!("grant_write.sql"),
        Role::Reader => include_str!("grant_read.sql"),
    };
    // Names of roles and schemas cannot be parameters of a statement.
    let text = [include_str!("revoke.sql"), granted].concat();
    let text = text.replace("{schema}", &identifier(&schema)).replace("{role}", &identifier(name));
    transaction.batch_execute(&text).await?;
    transaction.commit().await
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
