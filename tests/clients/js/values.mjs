// Encodings of values that JSON lacks:
//
//   {"$bytes":[1,2]}  Uint8Array     {"$date":"2000-01-01T00:00:00.000Z"}  Date     {"$bigint":"1"}  bigint (out only)
//   {"$subject":"name"}  an upload of the client (in only)

// Decodes a value from the pipe for the client.
export function unpack(value, subjects) {
  if (Array.isArray(value)) return value.map((item) => unpack(item, subjects));
  if (value === null || typeof value !== "object") return value;
  if (value.$bytes) return Uint8Array.from(value.$bytes);
  if (value.$date) return new Date(value.$date);
  if (value.$subject) return subjects.get(value.$subject);
  return mapMembers(value, (item) => unpack(item, subjects));
}

// Encodes a value of the client for the pipe.
export function pack(value) {
  if (typeof value === "bigint") return { $bigint: String(value) };
  if (value instanceof Uint8Array) return { $bytes: [...value] };
  if (value instanceof Date) return { $date: value.toISOString() };
  if (Array.isArray(value)) return value.map(pack);
  if (value === null || typeof value !== "object") return value;
  return mapMembers(value, pack);
}

const mapMembers = (object, map) => Object.fromEntries(Object.entries(object).map(([name, item]) => [name, map(item)]));
