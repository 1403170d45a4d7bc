SELECT has_schema_privilege($1::TEXT, $2::TEXT, 'USAGE') AND has_table_privilege($1::TEXT, $3::TEXT, $4::TEXT)
