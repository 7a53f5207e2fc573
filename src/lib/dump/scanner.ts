/**
 * Reads a plain-format dump as it flows by: which bytes are COPY data, which are SQL, and which lines are neither. Works
 * on any split of the dump into chunks, and keeps no more of it than one COPY statement.
 *
 * What is inside quotes is known (sql-lexer.ts), so that a function body which looks like a dump, or a name with a line break in it,
 * is not mistaken for one.
 */
import {isUtf8} from 'node:buffer';
import {BackupError} from '../errors.ts';
import {SqlLexer} from './sql-lexer.ts';

/** The head of a table's data, as pg_dump writes it. */
export interface CopyStatement {
  /** Schema and table as they stand in the dump, quoted where PostgreSQL quotes them: `public."Odd name"`. */
  table: string;
  /** The column list as it stands in the dump, without parentheses: `id, "Full name"`. */
  columns: string;
}

/**
 * Is told what the dump is made of, in order. All parts together are the dump, byte for byte. A handler that has no function
 * for a kind of statement is given it as SQL.
 */
export interface DumpHandler {
  /** SQL text, in any pieces. */
  sql(bytes: Buffer): void;
  /** `\restrict TOKEN` or `\unrestrict TOKEN`: random in every dump. */
  restrict(line: Buffer): void;
  /** Any other psql command. pg_dump writes none into a dump of one database: it has been tampered with. */
  command(line: Buffer): void;
  /** `-- Dumped from database version …`, `-- Dumped by pg_dump version …`. */
  version(line: Buffer): void;
  /** `BEGIN;` or `COMMIT;`, which pg_dump writes round large objects. */
  transaction?(line: Buffer): void;
  /** `-- Name: …; Type: …; Schema: …; Owner: …` (or `-- Data for Name: …`): a new object begins. */
  entry(line: Buffer): void;
  /**
   * `DROP EXTENSION IF EXISTS …;` or `COMMENT ON EXTENSION … IS …;` on one line: what only an extension's owner may do,
   * and a restore can do without.
   */
  extension?(line: Buffer): void;
  /**
   * `SET default_tablespace = …;` or `SET default_table_access_method = …;`: between two objects, and for all that follow.
   */
  setting?(line: Buffer): void;
  /** `SELECT pg_catalog.set_config('search_path', '', false);`: from here on every name is written with its schema. */
  searchPath?(line: Buffer): void;
  /** `SET transaction_timeout = 0;`, written by pg_dump from 17 on for every server: servers before 17 do not know it. */
  newSetting?(line: Buffer): void;
  /**
   * `ALTER TABLE IF EXISTS ONLY … DROP CONSTRAINT IF EXISTS …;`, or the same of a domain: of what --clean drops. A
   * partition's constraint may be its parent's, and go only with it or with the partition; of a domain, `IF EXISTS` means the
   * constraint, and not the domain or its schema.
   */
  constraintDrop?(line: Buffer): void;
  /** `DROP INDEX IF EXISTS …;`. A constraint of a partition may need it, and goes only with the partition. */
  indexDrop?(line: Buffer): void;
  /**
   * `CREATE OR REPLACE VIEW … AS SELECT NULL::… AS …;`: what --clean puts in the place of a view that needs
   * a constraint (`GROUP BY` a primary key), to drop the constraint before the view. Where there is no such view, its schema and
   * its types may be missing, too.
   */
  dummyView?(statement: Buffer): void;
  copyStart(statement: CopyStatement, line: Buffer): void;
  /** Rows of the table, in any pieces: one line a row. */
  copyData(bytes: Buffer): void;
  /** The line `\.`. */
  copyEnd(line: Buffer): void;
  /** `-- PostgreSQL database dump complete`: pg_dump wrote all that it wanted to. */
  complete(line: Buffer): void;
}

const newline = 0x0a;
const doubleQuote = 0x22;
const semicolon = 0x3b;
/** How a row that ends the data begins. No other does: the server writes a backslash in a value as two. */
const endMark = Buffer.from('\n\\.');
/** The rest of that row; psql takes a carriage return before the line break too, and runs what follows. */
const endings = [Buffer.from('\n'), Buffer.from('\r\n')];

/**
 * The longest line that is looked at as a whole. A COPY statement names at most 1,600 columns of 63 bytes each, quotes
 * doubled: 0.2 MB.
 */
const longestLine = 1 << 20;

/** A name as PostgreSQL quotes it, of a regular expression without groups. */
export const identifier = String.raw`(?:"(?:[^"]|"")+"|[^\s"().,;]+)`;
const copyPattern = new RegExp(
  String.raw`^COPY (${identifier}(?:\.${identifier})?) (?:\((${identifier}(?:, ${identifier})*)\))? ?FROM stdin;\n$`,
);

/** Whole statements; what only begins like one is ordinary SQL. */
const statementPatterns = {
  transaction: /^(BEGIN|COMMIT);\n?$/,
  extension: /^(DROP EXTENSION IF EXISTS (\w+|"[^"]+")|COMMENT ON EXTENSION (\w+|"[^"]+") IS '([^'\\]|'')*');\n$/,
  constraintDrop: new RegExp(
    String.raw`^ALTER (?:TABLE IF EXISTS ONLY|DOMAIN) ${identifier}\.${identifier} DROP CONSTRAINT IF EXISTS ${identifier};\n$`,
  ),
  indexDrop: new RegExp(String.raw`^DROP INDEX IF EXISTS ${identifier}\.${identifier};\n$`),
  // pg_get_viewdef, which writes all other views, indents SELECT.
  dummyView: new RegExp(
    String.raw`^CREATE OR REPLACE VIEW ${identifier}\.${identifier} AS\nSELECT(?:\n    NULL::(?:[^";]|"[^"]*")+)?;\n$`,
  ),
  setting: /^SET default_(tablespace = ('([^'\\]|'')*'|\w+|"[^"]+")|table_access_method = (\w+|"[^"]+"));\n$/,
  newSetting: /^SET transaction_timeout = 0;\n$/,
  searchPath: /^SELECT pg_catalog\.set_config\('search_path', '', false\);\n$/,
};

/** Lines that begin a statement and may be something other than SQL, by how they start. */
const lineKinds = [
  {prefix: 'COPY ', kind: 'copy'},
  {prefix: '\\', kind: 'command'},
  {prefix: '-- Dumped ', kind: 'version'},
  {prefix: '-- Name: ', kind: 'entry'},
  {prefix: '-- Data for Name: ', kind: 'entry'},
  {prefix: '-- PostgreSQL database dump complete', kind: 'complete'},
  {prefix: 'BEGIN;', kind: 'transaction'},
  {prefix: 'COMMIT;', kind: 'transaction'},
  {prefix: 'DROP EXTENSION IF EXISTS ', kind: 'extension'},
  {prefix: 'COMMENT ON EXTENSION ', kind: 'extension'},
  {prefix: 'SET default_t', kind: 'setting'},
  {prefix: 'SET transaction_timeout = 0;', kind: 'newSetting'},
  {prefix: "SELECT pg_catalog.set_config('search_path'", kind: 'searchPath'},
  {prefix: 'ALTER TABLE IF EXISTS ONLY ', kind: 'constraintDrop'},
  {prefix: 'ALTER DOMAIN ', kind: 'constraintDrop'},
  {prefix: 'DROP INDEX IF EXISTS ', kind: 'indexDrop'},
  {prefix: 'CREATE OR REPLACE VIEW ', kind: 'dummyView'},
  {prefix: 'SET standard_conforming_strings = off;', kind: 'oldStrings'},
] as const;

const longestPrefix = Math.max(...lineKinds.map(({prefix}) => prefix.length));

type LineKind = (typeof lineKinds)[number]['kind'];

export class DumpScanner {
  readonly #handler: DumpHandler;
  readonly #sql: SqlLexer;
  /** Bytes that can only be understood with those that follow them. */
  #carry: Buffer | undefined;
  #inCopy = false;
  /** Nothing of the COPY data has been seen yet. */
  #copyIsFresh = false;

  constructor(handler: DumpHandler) {
    this.#handler = handler;
    this.#sql = new SqlLexer((line) => handler.command(line));
  }

  write(chunk: Buffer): void {
    let bytes = this.#carry ? Buffer.concat([this.#carry, chunk]) : chunk;
    this.#carry = undefined;
    while (bytes.length > 0) {
      const consumed = this.#inCopy ? this.#scanCopy(bytes) : this.#scanSql(bytes, false);
      if (consumed === 0) {
        // A copy: the chunk may be a slice of a block that is used again.
        this.#carry = Buffer.from(bytes);
        return;
      }
      bytes = bytes.subarray(consumed);
    }
  }

  /**
   * Takes the end of the dump.
   * @throws BackupError DUMP_UNREADABLE when the dump ends inside a table's data or a quoted text: it was cut off
   */
  end(): void {
    let rest = this.#carry ?? Buffer.alloc(0);
    this.#carry = undefined;
    while (rest.length > 0 && !this.#inCopy) rest = rest.subarray(this.#scanSql(rest, true));
    if (this.#inCopy || this.#sql.isInsideText) {
      throw new BackupError('The dump is cut off', {
        code: 'DUMP_UNREADABLE',
        kind: 'integrity',
        reason: this.#inCopy ? 'it ends inside the data of a table' : 'it ends inside a quoted text',
        hint: 'Take another backup: this one holds only a part of the database.',
      });
    }
  }

  /** Takes COPY data; gives how many bytes it took. */
  #scanCopy(bytes: Buffer): number {
    if (this.#copyIsFresh) {
      const mark = endMark.subarray(1);
      const head = bytes.subarray(0, mark.length);
      if (mark.subarray(0, head.length).equals(head)) {
        const end = head.length < mark.length ? 0 : endOfRow(bytes, mark.length);
        if (end !== undefined) return end === 0 ? 0 : this.#endCopy(bytes, 0, end);
      }
      this.#copyIsFresh = false;
    }
    for (let from = 0; ; ) {
      const at = bytes.indexOf(endMark, from);
      if (at < 0) break;
      const end = endOfRow(bytes, at + endMark.length);
      if (end === undefined) {
        from = at + endMark.length;
        continue;
      }
      if (end === 0) return this.#passData(bytes, at);
      this.#handler.copyData(bytes.subarray(0, at + 1));
      return this.#endCopy(bytes, at + 1, end);
    }
    // The last bytes may be the beginning of the end.
    const lastBreak = bytes.lastIndexOf(newline);
    const mayBegin = lastBreak >= 0 && bytes.length - lastBreak < endMark.length;
    const isBegun = mayBegin && endMark.subarray(0, bytes.length - lastBreak).equals(bytes.subarray(lastBreak));
    return this.#passData(bytes, isBegun ? lastBreak : bytes.length);
  }

  #passData(bytes: Buffer, length: number): number {
    if (length > 0) this.#handler.copyData(bytes.subarray(0, length));
    return length;
  }

  #endCopy(bytes: Buffer, start: number, end: number): number {
    this.#handler.copyEnd(bytes.subarray(start, end));
    this.#inCopy = false;
    this.#sql.beginStatement();
    return end;
  }

  /** Takes SQL text; gives how many bytes it took, 0 when it needs more to go on. */
  #scanSql(bytes: Buffer, isLast: boolean): number {
    if (this.#sql.isBetweenStatements) {
      const taken = this.#scanLine(bytes, isLast);
      if (taken !== undefined) return taken;
    }
    const consumed = this.#sql.read(bytes, isLast);
    if (consumed > 0) this.#handler.sql(bytes.subarray(0, consumed));
    return consumed;
  }

  /** Takes a line that is not plain SQL. Gives undefined when this one is, 0 when that can't be said yet. */
  #scanLine(bytes: Buffer, isLast: boolean): number | undefined {
    const head = bytes.toString('latin1', 0, longestPrefix);
    const match = lineKinds.find(({prefix}) => head.startsWith(prefix) || (!isLast && prefix.startsWith(head)));
    if (!match) return undefined;
    if (head.length < match.prefix.length) return 0;
    // Whether the line is too long must not depend on how much of what follows it is there.
    const window = bytes.subarray(0, longestLine);
    let end = endOf(match.kind, window);
    if (end === 0) {
      if (bytes.length >= longestLine) return undefined;
      if (!isLast) return 0;
      end = bytes.length;
    }
    return this.#takeLine(match.kind, bytes.subarray(0, end)) ? end : undefined;
  }

  /** Hands a whole line to the handler; false when it turns out to be ordinary SQL. */
  #takeLine(kind: LineKind, line: Buffer): boolean {
    switch (kind) {
      case 'copy': {
        const match = copyPattern.exec(decodeNames(line));
        if (!match) return false;
        this.#handler.copyStart({table: match[1] ?? '', columns: match[2] ?? ''}, line);
        this.#inCopy = true;
        this.#copyIsFresh = true;
        return true;
      }
      case 'command':
        if (/^\\(un)?restrict [A-Za-z0-9]+\n$/.test(line.toString('latin1'))) this.#handler.restrict(line);
        else this.#handler.command(line);
        return true;
      case 'transaction':
      case 'extension':
      case 'constraintDrop':
      case 'indexDrop':
      case 'dummyView':
      case 'setting':
      case 'newSetting':
      case 'searchPath':
        if (!statementPatterns[kind].test(line.toString('latin1'))) return false;
        if (this.#handler[kind]) this.#handler[kind](line);
        else this.#handler.sql(line);
        return true;
      case 'oldStrings':
        this.#sql.useOldStrings();
        return false;
      default:
        // For psql the comment ends at a carriage return, and what follows is not one.
        if (line.includes('\r')) return false;
        this.#handler[kind](line);
        return true;
    }
  }
}

/**
 * Where the row ends that `\.` begins and that goes on at `at`. Undefined: it is a row like any other; 0: more bytes are
 * needed to say.
 */
function endOfRow(bytes: Buffer, at: number): number | undefined {
  for (const ending of endings) {
    const rest = bytes.subarray(at, at + ending.length);
    if (rest.equals(ending)) return at + ending.length;
    if (rest.length < ending.length && ending.subarray(0, rest.length).equals(rest)) return 0;
  }
  return undefined;
}

/**
 * Names of a SQL_ASCII database may be in any encoding. Bytes that are not UTF-8 are told by their value behind a replacement
 * character (`caf\ufffde9`), so that two names stay two.
 */
function decodeNames(line: Buffer): string {
  if (isUtf8(line)) return line.toString();
  const byCode = (character: string) => `\ufffd${character.charCodeAt(0).toString(16)}`;
  return line.toString('latin1').replaceAll(/[\x80-\xff]/g, byCode);
}

/** Where a line of this kind ends; 0 if it goes on. */
function endOf(kind: LineKind, bytes: Buffer): number {
  switch (kind) {
    case 'copy':
    case 'constraintDrop':
    case 'indexDrop':
      return endOutsideNames(bytes, () => true);
    case 'dummyView':
      return endOutsideNames(bytes, (at) => bytes[at - 1] === semicolon);
    default:
      return bytes.indexOf(newline) + 1;
  }
}

/** What is after the first line break that is not inside a quoted name, and that is meant; 0 if there is none. */
function endOutsideNames(bytes: Buffer, isMeant: (at: number) => boolean): number {
  let isInsideName = false;
  for (let at = 0; at < bytes.length; at += 1) {
    if (bytes[at] === doubleQuote) isInsideName = !isInsideName;
    else if (bytes[at] === newline && !isInsideName && isMeant(at)) return at + 1;
  }
  return 0;
}
