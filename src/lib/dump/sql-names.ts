/** Names and statements as pg_dump writes them (PostgreSQL manual, 4.1 Lexical Structure). */
import {identifier} from './scanner.ts';

/** A name in a schema, without quotes. */
export interface QualifiedName {
  schema: string;
  name: string;
}

/** Of regular expressions: an identifier, and one in a schema. Each is one group. */
export const I = `(${identifier})`;
export const Q = String.raw`(${identifier}\.${identifier})`;

const qualifiedPattern = new RegExp(String.raw`^(${identifier})\.(${identifier})$`);

const tablespacePattern = new RegExp(`^SET default_tablespace = (${identifier});\n$`);

/** The tablespace that a statement sets, its bytes as latin1; undefined for another statement, and for the database's own. */
export function tablespaceOf(statement: Buffer): string | undefined {
  const name = tablespacePattern.exec(statement.toString('latin1'))?.[1];
  return name === undefined || name.startsWith("'") ? undefined : unquote(name);
}

export function unquote(text: string): string {
  return text.startsWith('"') ? text.slice(1, -1).replaceAll('""', '"') : text;
}

/** Quoted where PostgreSQL's own names would have to be, so that two names never look the same. */
export function quote(name: string): string {
  return /^[a-z_][a-z0-9_]*$/.test(name) ? name : `"${name.replaceAll('"', '""')}"`;
}

/** Of a name as the dump writes it: `public."Odd name"`. */
export function parseQualified(text: string): QualifiedName | undefined {
  const match = qualifiedPattern.exec(text);
  return match ? {schema: unquote(match[1] ?? ''), name: unquote(match[2] ?? '')} : undefined;
}

/** The same for every way to write a name; to be shown and compared, not to be run. */
export function nameKey({schema, name}: QualifiedName): string {
  return `${quote(schema)}.${quote(name)}`;
}

/** `nameKey` of a name as the dump writes it; of something that is no name in a schema, the text itself. */
export function keyOf(text: string): string {
  const name = parseQualified(text);
  return name ? nameKey(name) : text;
}

const token = /[^;'"-]+|'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*\n?|-|(;[^\S\n]*\n?)|[\s\S]/gy;

/**
 * Statements with what stands before each of them (comments, empty lines), so that all together are the text; the last may
 * be a rest without a statement. For text without function bodies: what pg_dump writes before the first object.
 */
export function splitStatements(text: string): string[] {
  const statements: string[] = [];
  let begin = 0;
  for (const match of text.matchAll(token)) {
    if (match[1] === undefined) continue;
    const end = match.index + match[0].length;
    statements.push(text.slice(begin, end));
    begin = end;
  }
  if (begin < text.length) statements.push(text.slice(begin));
  return statements;
}

/** A text without the comments and empty lines before its first statement. */
export function withoutLead(text: string): string {
  return text.replace(/^(?:\s+|--[^\n]*(?:\n|$))+/, '');
}
