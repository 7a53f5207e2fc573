/** Any JSON value. */
export type Json = null | boolean | number | string | Json[] | {[name: string]: Json | undefined};

/**
 * One spelling for each JSON value, to be sealed: members sorted by name (by UTF-16 code unit), no white space, as
 * RFC 8785 wants it. Our numbers are whole, so that JSON.stringify writes them as the RFC does.
 */
export function canonicalJson(value: Json): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const members = Object.entries(value)
    .filter((member): member is [string, Json] => member[1] !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, member]) => `${JSON.stringify(name)}:${canonicalJson(member)}`);
  return `{${members.join(',')}}`;
}
