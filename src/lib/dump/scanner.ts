/**
 * Reads a plain-format dump as it flows by: which bytes are COPY data, which are SQL, and which lines are neither. Works
 * on any split of the dump into chunks, and keeps no more of it than one COPY statement.
 *
 * SQL is followed only as far as it takes to know what is inside quotes (PostgreSQL manual, 4.1 Lexical Structure), so
 * that a function body which looks like a dump, or a name with a line break in it, is not mistaken for one.
 */
import {isUtf8} from 'node:buffer';
import {BackupError} from '../errors.ts';
import {endsInCountedWord, StatementNesting} from './statement-nesting.ts';

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
  /** `SET transaction_timeout = 0;`, written by pg_dump from 17 on for every server: servers before 17 do not know it. */
  newSetting?(line: Buffer): void;
  /**
   * `ALTER TABLE IF EXISTS ONLY … DROP CONSTRAINT IF EXISTS …;` on one line: of what --clean drops. A partition's constraint
   * may be its parent's, and go only with it or with the partition.
   */
  constraintDrop?(line: Buffer): void;
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
/** How a row that ends the data begins. No other does: the server writes a backslash in a value as two. */
const endMark = Buffer.from('\n\\.');
/** The rest of that row; psql takes a carriage return before the line break too, and runs what follows. */
const endings = [Buffer.from('\n'), Buffer.from('\r\n')];

/**
 * The longest line that is looked at as a whole. A COPY statement names at most 1,600 columns of 63 bytes each, quotes
 * doubled: 0.2 MB.
 */
const longestLine = 1 << 20;

/**
 * How much SQL is made a string at a time, in bytes. Plain: a scan stops at every statement, so this bounds what is converted
 * twice; the longest tag has to fit in. Inside quotes: a large object is one string.
 */
const lexingWindow = {plain: 2048, quoted: 65_536};

/** A name as PostgreSQL quotes it, of a regular expression without groups. */
export const identifier = String.raw`(?:"(?:[^"]|"")+"|[^\s"().,;]+)`;
const copyPattern = new RegExp(
  String.raw`^COPY (${identifier}(?:\.${identifier})?) (?:\((${identifier}(?:, ${identifier})*)\))? ?FROM stdin;\n$`,
);

/** Whole statements on one line; what only begins like one is ordinary SQL. */
const statementPatterns = {
  transaction: /^(BEGIN|COMMIT);\n?$/,
  extension: /^(DROP EXTENSION IF EXISTS (\w+|"[^"]+")|COMMENT ON EXTENSION (\w+|"[^"]+") IS '([^'\\]|'')*');\n$/,
  constraintDrop: new RegExp(
    String.raw`^ALTER TABLE IF EXISTS ONLY ${identifier}\.${identifier} DROP CONSTRAINT IF EXISTS ${identifier};\n$`,
  ),
  setting: /^SET default_(tablespace = ('([^'\\]|'')*'|\w+|"[^"]+")|table_access_method = (\w+|"[^"]+"));\n$/,
  newSetting: /^SET transaction_timeout = 0;\n$/,
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
  {prefix: 'ALTER TABLE IF EXISTS ONLY ', kind: 'constraintDrop'},
  {prefix: 'SET standard_conforming_strings = off;', kind: 'oldStrings'},
] as const;

type LineKind = (typeof lineKinds)[number]['kind'];

/** Where in SQL the scanner is. */
type Lexing =
  | {in: 'plain' | 'string' | 'escapeString' | 'name' | 'lineComment'}
  | {in: 'blockComment'; depth: number}
  | {in: 'dollar'; tag: string};

const plain: Lexing = {in: 'plain'};
const special = /['"$;\n\\()\0]|--?|\/\*?/g;
/** PostgreSQL sets no limit to a tag; pg_dump's have a few characters. */
const longestTag = 1000;
/** A tag, with how many characters follow its first one. */
const tagOf = (more: string) => String.raw`[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]${more}`;
const dollarTag = new RegExp(String.raw`\$(?:${tagOf('*')})?\$`, 'y');
const dollarTagBegun = new RegExp(String.raw`\$(?:${tagOf(`{0,${longestTag - 1}}`)})?$`, 'y');
const dollarTagTooLong = new RegExp(String.raw`\$${tagOf(`{${longestTag}}`)}`, 'y');
const words = /[A-Za-z0-9_$\x80-\xff]+/g;
const wordAtEnd = /[A-Za-z0-9_$\x80-\xff]$/;
/** A number or a parameter (`$1`), with what follows it at once. */
const numberBegun = /^[0-9$]/;
/** No word that means something is longer. */
const longestWord = 16;

export class DumpScanner {
  readonly #handler: DumpHandler;
  /** Bytes that can only be understood with those that follow them. */
  #carry: Buffer | undefined;
  #inCopy = false;
  /** Nothing of the COPY data has been seen yet. */
  #copyIsFresh = false;
  #lexing: Lexing = plain;
  #atLineStart = true;
  #atStatementStart = true;
  /** The word that plain SQL ends with (its beginning): it decides what a quote or a dollar sign after it means. */
  #word = '';
  readonly #statement = new StatementNesting();
  /** Whether a backslash escapes in ordinary strings (`standard_conforming_strings = off`). */
  #oldStrings = false;

  constructor(handler: DumpHandler) {
    this.#handler = handler;
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
    if (this.#inCopy || (this.#lexing.in !== 'plain' && this.#lexing.in !== 'lineComment')) {
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
    this.#beginStatement();
    return end;
  }

  #beginStatement(): void {
    this.#atLineStart = true;
    this.#atStatementStart = true;
    this.#word = '';
  }

  /** Takes SQL text; gives how many bytes it took, 0 when it needs more to go on. */
  #scanSql(bytes: Buffer, isLast: boolean): number {
    if (this.#lexing.in === 'plain' && this.#atLineStart && this.#atStatementStart) {
      const taken = this.#scanLine(bytes, isLast);
      if (taken !== undefined) return taken;
    }
    const consumed = this.#lex(bytes, isLast);
    if (consumed > 0) this.#handler.sql(bytes.subarray(0, consumed));
    return consumed;
  }

  /** Takes a line that is not plain SQL. Gives undefined when this one is, 0 when that can't be said yet. */
  #scanLine(bytes: Buffer, isLast: boolean): number | undefined {
    const head = bytes.toString('latin1', 0, 40);
    const match = lineKinds.find(({prefix}) => head.startsWith(prefix) || (!isLast && prefix.startsWith(head)));
    if (!match) return undefined;
    if (head.length < match.prefix.length) return 0;
    // Whether the line is too long must not depend on how much of what follows it is there.
    const window = bytes.subarray(0, longestLine);
    let end = match.kind === 'copy' ? endOfCopyStatement(window) : window.indexOf(newline) + 1;
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
      case 'setting':
      case 'newSetting':
        if (!statementPatterns[kind].test(line.toString('latin1'))) return false;
        if (this.#handler[kind]) this.#handler[kind](line);
        else this.#handler.sql(line);
        return true;
      case 'oldStrings':
        this.#oldStrings = true;
        return false;
      default:
        // For psql the comment ends at a carriage return, and what follows is not one.
        if (line.includes('\r')) return false;
        this.#handler[kind](line);
        return true;
    }
  }

  /**
   * Follows quotes and comments until a line begins that has to be looked at, or until the bytes end.
   * @returns how many bytes were understood
   */
  #lex(bytes: Buffer, isLast: boolean): number {
    const text = bytes.toString('latin1', 0, lexingWindow[this.#lexing.in === 'plain' ? 'plain' : 'quoted']);
    const isLastText = isLast && text.length === bytes.length;
    let at = 0;
    while (at < text.length) {
      const next =
        this.#lexing.in === 'plain' ? this.#lexPlain(text, at, isLastText) : this.#lexQuoted(text, at, isLastText);
      if (next === undefined) return at;
      at = next;
      if (this.#lexing.in === 'plain' && this.#atLineStart && this.#atStatementStart) return at;
    }
    return at;
  }

  /** Takes plain SQL up to and with the next special character. Undefined: more is needed to understand it. */
  #lexPlain(text: string, at: number, isLast: boolean): number | undefined {
    special.lastIndex = at;
    const match = special.exec(text);
    const end = match ? match.index : text.length;
    if (end > at) this.#passPlain(text.slice(at, end));
    if (!match) return text.length;
    const token = match[0];
    const after = end + token.length;
    // `-`, `/` and `$` may be the first half of something: say how far it went, and come back with more.
    const needsMore = after === text.length && !isLast;
    switch (token) {
      case '\n':
        this.#passPlain(token);
        this.#atLineStart = true;
        return after;
      case ';':
        this.#passPlain(token);
        this.#atStatementStart = this.#statement.endsHere();
        return after;
      case '(':
      case ')':
        this.#passPlain(token);
        this.#statement.parenthesis(token);
        return after;
      case '\0':
        throw ambiguous('a NUL byte, at which psql stops to read the line');
      case "'":
        this.#beginQuote(token, this.#oldStrings || /^e$/i.test(this.#word) ? 'escapeString' : 'string');
        return after;
      case '"':
        this.#beginQuote(token, 'name');
        return after;
      case '--':
        this.#endWord();
        this.#atLineStart = false;
        this.#lexing = {in: 'lineComment'};
        return after;
      case '/*':
        this.#endWord();
        this.#lexing = {in: 'blockComment', depth: 1};
        return after;
      case '\\': {
        const line = /^.{1,80}/.exec(text.slice(end))?.[0] ?? token;
        // All that is shown of it at once, so that it is the same for every split.
        if (line.length < 80 && end + line.length === text.length && !isLast) return end > at ? end : undefined;
        this.#handler.command(Buffer.from(line, 'latin1'));
        this.#passPlain(token);
        return after;
      }
      case '$': {
        // Inside an identifier it is a letter.
        if (/^[^0-9$]/.test(this.#word)) break;
        // Whether it is a tag must not depend on how much of it is there.
        dollarTagTooLong.lastIndex = end;
        if (dollarTagTooLong.test(text))
          throw ambiguous(`a dollar quote whose tag is longer than ${longestTag} characters`);
        dollarTag.lastIndex = end;
        const tag = dollarTag.exec(text)?.[0];
        if (tag) {
          this.#refuseAfterNumber(tag);
          this.#atStatementStart = false;
          this.#lexing = {in: 'dollar', tag};
          return end + tag.length;
        }
        dollarTagBegun.lastIndex = end;
        if (!isLast && dollarTagBegun.test(text)) return end > at ? end : undefined;
        if (!/[0-9]/.test(text[after] ?? ''))
          throw ambiguous('a dollar sign that begins neither a quote nor a parameter');
        break;
      }
      default:
        if (needsMore) return end > at ? end : undefined;
    }
    this.#passPlain(token);
    return after;
  }

  #beginQuote(quote: string, kind: 'string' | 'escapeString' | 'name'): void {
    if (quote === "'") {
      this.#refuseAfterNumber(quote);
      // A letter that belongs to the quote is no word.
      if (/^[ebnx]$/i.test(this.#word)) this.#word = '';
    }
    this.#endWord();
    this.#atStatementStart = false;
    this.#lexing = {in: kind};
  }

  /** Versions of psql differ in where a number ends that letters or a quote follow at once. */
  #refuseAfterNumber(quote: string): void {
    if (numberBegun.test(this.#word)) throw ambiguous(`a number with a quote after it (${this.#word}${quote})`);
  }

  /** Notes what plain text means for what follows it. */
  #passPlain(text: string): void {
    if (/\S/.test(text)) this.#atStatementStart = false;
    this.#atLineStart = false;
    words.lastIndex = 0;
    for (let match = words.exec(text); match; match = words.exec(text)) {
      if (match.index > 0) this.#endWord();
      const word = this.#word + match[0];
      // Of a number, what stands at its end matters, too.
      this.#word = numberBegun.test(word)
        ? word.slice(0, 1) + word.slice(1).slice(-longestWord)
        : word.slice(0, longestWord);
    }
    if (!wordAtEnd.test(text)) this.#endWord();
  }

  /** @throws BackupError for a keyword after a number: a psql for which the number ends before it counts it, others do not */
  #endWord(): void {
    if (numberBegun.test(this.#word) && endsInCountedWord.test(this.#word)) {
      throw ambiguous(`a number with a word after it (${this.#word})`);
    }
    if (this.#word !== '') this.#statement.word(this.#word);
    this.#word = '';
  }

  /** Takes quoted text or a comment up to and with its end. Undefined: more is needed to understand it. */
  #lexQuoted(text: string, at: number, isLast: boolean): number | undefined {
    const lexing = this.#lexing;
    switch (lexing.in) {
      // A doubled quote ends the text and begins another: the same thing to us.
      case 'string':
        return this.#leaveAfter("'", text, at);
      case 'name':
        return this.#leaveAfter('"', text, at);
      case 'lineComment': {
        // A carriage return ends it too, for psql. The line break itself belongs to plain SQL.
        const length = text.slice(at).search(/[\n\r]/);
        if (length < 0) return text.length;
        this.#lexing = plain;
        return at + length;
      }
      case 'dollar': {
        const end = text.indexOf(lexing.tag, at);
        if (end >= 0) {
          this.#leave();
          return end + lexing.tag.length;
        }
        const safe = isLast ? text.length : text.length - lexing.tag.length + 1;
        return safe > at ? safe : undefined;
      }
      case 'escapeString':
        return this.#lexEscapeString(text, at, isLast);
      case 'blockComment':
        return this.#lexBlockComment(lexing.depth, text, at, isLast);
      default:
        return at;
    }
  }

  #leave(): void {
    this.#lexing = plain;
  }

  #leaveAfter(quote: string, text: string, at: number): number {
    const end = text.indexOf(quote, at);
    if (end < 0) return text.length;
    this.#leave();
    return end + 1;
  }

  #lexEscapeString(text: string, at: number, isLast: boolean): number | undefined {
    for (let position = at; position < text.length; position += 1) {
      const character = text[position];
      if (character !== '\\' && character !== "'") continue;
      const follower = text[position + 1];
      if (follower === undefined && !isLast) return position > at ? position : undefined;
      if (character === "'" && follower !== "'") {
        this.#leave();
        return position + 1;
      }
      position += 1;
    }
    return text.length;
  }

  #lexBlockComment(depth: number, text: string, at: number, isLast: boolean): number | undefined {
    const mark = /\/\*|\*\//g;
    mark.lastIndex = at;
    const match = mark.exec(text);
    if (match) {
      const left = depth + (match[0] === '/*' ? 1 : -1);
      this.#lexing = left === 0 ? plain : {in: 'blockComment', depth: left};
      return mark.lastIndex;
    }
    const last = text.at(-1);
    const safe = !isLast && (last === '*' || last === '/') ? text.length - 1 : text.length;
    return safe > at ? safe : undefined;
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

/** Where the line ends that a COPY statement stands on; 0 if it goes on. A line break inside a quoted name does not end it. */
function endOfCopyStatement(bytes: Buffer): number {
  let isInsideName = false;
  for (let at = 0; at < bytes.length; at += 1) {
    if (bytes[at] === doubleQuote) isInsideName = !isInsideName;
    else if (bytes[at] === newline && !isInsideName) return at + 1;
  }
  return 0;
}

/** What to do with a dump that pg_dump did not write. */
export const tamperedHint =
  'The source database may have been tampered with. Write the dump to a file (--output) on an encrypted disk, and look at it before anything runs it.';

/** What psql and this scanner might take for different things, so that one would look for commands where the other has a text. */
function ambiguous(what: string): BackupError {
  return new BackupError('The dump cannot be read for certain', {
    code: 'DUMP_UNREADABLE',
    kind: 'integrity',
    reason: `pg_dump does not write ${what}`,
    hint: tamperedHint,
  });
}
