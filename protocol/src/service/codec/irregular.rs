//! Messages with a layout of their own.

use super::super::service_message::{
    ClientCompletion, CloseConnection, ConnectionData, GroupMemberQuery, LinkHandshakeRequest, OpenConnection, Ping,
    ServiceError, UserConnectionQuery, UserGroupChange,
};
use super::extension;
use crate::fields::{Field, FieldResult, Fields, Form, Map, Required};
use crate::message_pack::Writer;

/// Body of a message that is written and read by hand.
pub(super) trait Irregular: Sized {
    /// Estimated length apart from the envelope.
    fn expected_bytes(&self) -> usize {
        0
    }

    fn write(&self, number: u8, out: &mut Writer);

    fn read(number: u8, fields: &mut Fields) -> FieldResult<Self>;
}

impl Irregular for LinkHandshakeRequest {
    fn write(&self, number: u8, out: &mut Writer) {
        begin(out, 7, number);
        self.version.write(out);
        self.kind.write(out);
        self.target.write(out);
        self.migration_level.write(out);
        no_extension(out);
        self.allow_stateful_reconnects.write(out);
    }

    fn read(_number: u8, fields: &mut Fields) -> FieldResult<Self> {
        let mut it = Self { version: fields.value("version")?, ..Self::default() };
        if fields.has(4) {
            it.kind = fields.value("connectionType")?;
            it.target = fields.value::<Option<_>>("target")?.unwrap_or_default();
        }
        if fields.has(5) {
            it.migration_level = fields.value("migrationLevel")?;
        }
        if fields.has(7) {
            fields.skip_extension()?;
            it.allow_stateful_reconnects = fields.value("allowStatefulReconnects")?;
        }
        Ok(it)
    }
}

impl Irregular for Ping {
    fn write(&self, number: u8, out: &mut Writer) {
        begin(out, 1 + 2 * self.pairs.len(), number);
        for (key, value) in &self.pairs {
            key.write(out);
            value.write(out);
        }
    }

    fn read(_number: u8, fields: &mut Fields) -> FieldResult<Self> {
        Ok(Self { pairs: fields.pairs()? })
    }
}

impl Irregular for ServiceError {
    fn write(&self, number: u8, out: &mut Writer) {
        begin(out, 2, number);
        self.error.write(out);
    }

    fn read(_number: u8, fields: &mut Fields) -> FieldResult<Self> {
        Ok(Self { error: fields.value("errorMessage")? })
    }
}

impl Irregular for OpenConnection {
    fn expected_bytes(&self) -> usize {
        let texts = self.connection_id.expected_bytes() + self.query.expected_bytes() + self.protocol.expected_bytes();
        texts + self.claims.expected_bytes() + self.headers.expected_bytes()
    }

    fn write(&self, number: u8, out: &mut Writer) {
        begin(out, 6, number);
        self.connection_id.write(out);
        Map::write(&self.claims, out);
        Map::write(&self.headers, out);
        self.query.write(out);
        match &self.protocol {
            Some(protocol) => protocol_extension(out, protocol),
            None => no_extension(out),
        }
    }

    fn read(_number: u8, fields: &mut Fields) -> FieldResult<Self> {
        let mut it = Self {
            connection_id: fields.value("connectionId")?,
            claims: fields.value_as::<Map, _>("claims")?,
            ..Self::default()
        };
        // Azure's SDK reads headers and query together or not at all: a fourth item alone is ignored.
        if !fields.has(5) {
            return Ok(it);
        }
        it.headers = fields.value_as::<Map, _>("headers")?;
        it.query = fields.value("queryString")?;
        for _ in 0..fields.extension_len()? {
            match fields.extension_key()? {
                extension::PROTOCOL => it.protocol = Field::read(fields, "protocol")?,
                _ => fields.skip_extension_value()?,
            }
        }
        Ok(it)
    }
}

impl Irregular for CloseConnection {
    fn write(&self, number: u8, out: &mut Writer) {
        begin(out, 5, number);
        self.connection_id.write(out);
        self.error.write(out);
        Map::write(&self.headers, out);
        no_extension(out);
    }

    fn read(_number: u8, fields: &mut Fields) -> FieldResult<Self> {
        let connection_id = fields.value("connectionId")?;
        let error = fields.value("errorMessage")?;
        let headers = if fields.has(4) { fields.value_as::<Map, _>("headers")? } else { Vec::new() };
        Ok(Self { connection_id, error, headers })
    }
}

impl Irregular for ConnectionData {
    fn expected_bytes(&self) -> usize {
        self.connection_id.len() + self.payload.len()
    }

    fn write(&self, _number: u8, out: &mut Writer) {
        let ends = if self.is_partial { Ends::WithinMessage } else { Ends::WithMessage };
        connection_data(out, &self.connection_id, &self.payload, self.data_type, ends);
    }

    fn read(_number: u8, fields: &mut Fields) -> FieldResult<Self> {
        let mut it =
            Self { connection_id: fields.value("connectionId")?, payload: fields.value("payload")?, ..Self::default() };
        for _ in 0..fields.extension_len()? {
            match fields.extension_key()? {
                extension::DATA_TYPE => it.data_type = Field::read(fields, "dataMessageType")?,
                extension::IS_PARTIAL => it.is_partial = Field::read(fields, "isPartial")?,
                _ => fields.skip_extension_value()?,
            }
        }
        Ok(it)
    }
}

/// Whether a payload ends at a hub message boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    WithMessage,
    WithinMessage,
}

pub(super) fn connection_data(out: &mut Writer, connection_id: &str, payload: &[u8], data_type: i64, ends: Ends) {
    begin(out, 4, 6);
    out.text(connection_id);
    out.binary(payload);
    let is_partial = ends == Ends::WithinMessage;
    out.map_len(usize::from(data_type != 0) + usize::from(is_partial));
    if data_type != 0 {
        out.integer(extension::DATA_TYPE);
        out.integer(data_type);
    }
    if is_partial {
        out.integer(extension::IS_PARTIAL);
        out.boolean(true);
    }
}

/// Joins with a time to live. Other messages don't have one: readers reject the key there.
impl Irregular for UserGroupChange {
    fn write(&self, number: u8, out: &mut Writer) {
        let has_ack = number == USER_JOIN_GROUP_WITH_ACK;
        begin(out, if has_ack { 5 } else { 4 }, number);
        self.user_id.write(out);
        self.group.write(out);
        if has_ack {
            self.ack_id.write(out);
        }
        match self.ttl_s {
            Some(ttl_s) => {
                out.map_len(1);
                out.integer(extension::TTL);
                out.integer(ttl_s);
            }
            None => no_extension(out),
        }
    }

    fn read(number: u8, fields: &mut Fields) -> FieldResult<Self> {
        let mut it = Self {
            user_id: fields.value("userId")?,
            group: fields.value_as::<Required, _>("group")?,
            ack_id: if number == USER_JOIN_GROUP_WITH_ACK { fields.value("ackId")? } else { 0 },
            ttl_s: None,
        };
        for _ in 0..fields.extension_len()? {
            match fields.extension_key()? {
                extension::TTL => it.ttl_s = Some(Field::read(fields, "ttl")?),
                _ => fields.skip_extension_value()?,
            }
        }
        Ok(it)
    }
}

const USER_JOIN_GROUP_WITH_ACK: u8 = 26;

impl Irregular for ClientCompletion {
    fn expected_bytes(&self) -> usize {
        self.invocation_id.len() + self.payload.len()
    }

    fn write(&self, number: u8, out: &mut Writer) {
        begin(out, 7, number);
        self.invocation_id.write(out);
        self.connection_id.write(out);
        self.caller_server_id.write(out);
        self.protocol.write(out);
        self.payload.write(out);
        protocol_extension(out, &self.protocol);
    }

    fn read(_number: u8, fields: &mut Fields) -> FieldResult<Self> {
        Ok(Self {
            invocation_id: fields.value("invocationId")?,
            connection_id: fields.value("connectionId")?,
            caller_server_id: fields.value("callerServerId")?,
            protocol: fields.value("protocol")?,
            payload: fields.value("payload")?,
        })
    }
}

impl Irregular for GroupMemberQuery {
    fn write(&self, number: u8, out: &mut Writer) {
        begin(out, 7, number);
        no_extension(out);
        self.group.write(out);
        self.ack_id.write(out);
        self.top.write(out);
        self.continuation_token.write(out);
        self.page_size.write(out);
    }

    /// Starts with the extension map. After the ack id there are two layouts:
    ///
    /// | items | fields | written by |
    /// |---|---|---|
    /// | 7 | `top`, `continuationToken`, `maxPageSize` | Azure's SDK, and ours |
    /// | 6 | `maxPageSize`, `continuationToken` | Azure's first revision, which calls the size `max` |
    fn read(_number: u8, fields: &mut Fields) -> FieldResult<Self> {
        fields.skip_extension()?;
        let mut it = Self { group: fields.value("group")?, ack_id: fields.value("ackId")?, ..Self::default() };
        let first = if fields.has(5) { fields.value("top")? } else { None };
        if !fields.has(7) {
            it.page_size = first;
            it.continuation_token = if fields.has(6) { fields.value("continuationToken")? } else { None };
        } else {
            (it.top, it.continuation_token) = (first, fields.value("continuationToken")?);
            it.page_size = fields.value("maxPageSize")?;
        }
        Ok(it)
    }
}

impl Irregular for UserConnectionQuery {
    fn write(&self, number: u8, out: &mut Writer) {
        begin(out, 6, number);
        no_extension(out);
        self.user_id.write(out);
        self.ack_id.write(out);
        self.page_size.write(out);
        self.continuation_token.write(out);
    }

    fn read(_number: u8, fields: &mut Fields) -> FieldResult<Self> {
        fields.skip_extension()?;
        Ok(Self {
            user_id: fields.value("userId")?,
            ack_id: fields.value("ackId")?,
            page_size: fields.value("maxPageSize")?,
            continuation_token: fields.value("continuationToken")?,
        })
    }
}

fn protocol_extension(out: &mut Writer, protocol: &str) {
    out.map_len(1);
    out.integer(extension::PROTOCOL);
    out.text(protocol);
}

pub(super) fn begin(out: &mut Writer, items: usize, number: u8) {
    out.array_len(items);
    out.integer(i64::from(number));
}

pub(super) fn no_extension(out: &mut Writer) {
    out.map_len(0);
}
