//! Encoding and decoding of message bodies, generated from the table of messages: fields in wire order.

use bytestring::ByteString;

use super::super::message_table::service_messages;
use super::super::service_message::{self, Filtered, ServiceMessage};
use super::extension::NonEmpty;
use super::irregular::{Irregular, begin, no_extension};
use crate::fields::{Field, FieldResult, Fields, Form, Map, Required, Timestamp, count, form, name};
use crate::message_pack::Writer;

/// Typical size of a message without names and payloads: headers, numbers, extension map.
pub(super) const ENVELOPE_BYTES: usize = 16;

macro_rules! layouts {
    ($($(#[$doc:meta])* $number:literal $name:ident($body:ident) $class:ident $layout:tt;)*) => {
        /// Estimated body length: exact for potentially large parts, otherwise just the envelope.
        pub(super) fn expected_bytes(message: &ServiceMessage) -> usize {
            ENVELOPE_BYTES + match message {
                $(ServiceMessage::$name(it) => bytes_of_fields!(it $layout),)*
            }
        }

        pub(super) fn write(message: &ServiceMessage, out: &mut Writer) {
            match message {
                $(ServiceMessage::$name(it) => write_fields!(it, out, $number $layout),)*
            }
        }

        pub(super) fn read(number: i64, fields: &mut Fields) -> FieldResult<Option<ServiceMessage>> {
            Ok(Some(match number {
                $($number => read_fields!(fields, $number $name $body $class $layout),)*
                _ => return Ok(None),
            }))
        }
    };
}

macro_rules! bytes_of_fields {
    ($it:ident irregular) => { Irregular::expected_bytes($it) };
    ($it:ident [
        $($field:ident $(as $form:ident)? $($name:literal)?),*
        $(| $($late:ident $($late_name:literal)?),*)? $(, ..$rest:ident)?
    ]) => {
        0 $(+ $it.$field.expected_bytes())* $($(+ $it.$late.expected_bytes())*)?
    };
}

macro_rules! write_fields {
    ($it:ident, $out:ident, $number:literal irregular) => { Irregular::write($it, $number, $out) };
    ($it:ident, $out:ident, $number:literal [
        $($field:ident $(as $form:ident)? $($name:literal)?),*
        $(| $($late:ident $($late_name:literal)?),*)? $(, ..$rest:ident)?
    ]) => {{
        begin($out, 2 + count!($($field)* $($($late)*)?), $number);
        $(<form!($($form)?)>::write(&$it.$field, $out);)*
        no_extension($out);
        $($($it.$late.write($out);)*)?
    }};
}

macro_rules! read_fields {
    ($fields:ident, $number:literal $name:ident $body:ident $class:ident irregular) => {
        ServiceMessage::$name(Irregular::read($number, $fields)?)
    };
    ($fields:ident, $number:literal $message:ident $body:ident $class:ident [
        $($field:ident $(as $form:ident)? $($name:literal)?),*
        $(| $($late:ident $($late_name:literal)?),*)? $(, ..$rest:ident)?
    ]) => {{
        $(let $field = $fields.value_as::<form!($($form)?), _>(name!($field $($name)?))?;)*
        let filter = filter!($class $fields);
        $(
            let ($($late,)*) = if has_late!($class $fields count!($($late)*)) {
                ($($fields.value(name!($late $($late_name)?))?,)*)
            } else {
                Default::default()
            };
        )?
        let body = service_message::$body { $($field,)* $($($late,)*)? $(..$rest::default())? };
        with_filter(ServiceMessage::$message(body), filter)
    }};
}

macro_rules! filter {
    (Send $fields:ident) => {
        $fields.filter()?
    };
    ($class:ident $fields:ident) => {
        None
    };
}

/// Whether the extension map is followed by further fields. The filter of a send is read with the map.
macro_rules! has_late {
    (Send $fields:ident $items:expr) => {
        $fields.left >= $items
    };
    ($class:ident $fields:ident $items:expr) => {
        $fields.left > $items && $fields.skip_extension().map(|()| true)?
    };
}

service_messages!(layouts);

/// Wraps a send that has a filter, so that code without filter support can't mistake it for an unfiltered one.
fn with_filter(message: ServiceMessage, filter: Option<ByteString>) -> ServiceMessage {
    match filter {
        None => message,
        Some(filter) => ServiceMessage::Filtered(Filtered { filter, body: message.to_body() }),
    }
}
