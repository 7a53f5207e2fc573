/**
 * Follows SQL only as far as it takes to know what is inside quotes and comments, and where a statement begins (PostgreSQL
 * manual, 4.1 Lexical Structure), as psql does (psqlscan.l). What psql and this lexer might read differently is refused.
 */
import {BackupError} from '../errors.ts';
import {endsInCountedWord, StatementNesting} from './statement-nesting.ts';

/**
 * How much SQL is made a string at a time, in bytes. Plain: a scan stops at every statement, so this bounds what is converted
 * twice; the longest tag has to fit in. Inside quotes: a large object is one string.
 */
const lexingWindow = {plain: 2048, quoted: 65_536};

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

/** Reads SQL in any pieces. */
export class SqlLexer {
  /** Is told of a backslash outside of quotes, which begins a command of psql's: the line from there on, up to 80 characters. */
  readonly #onCommand: (line: Buffer) => void;
  #lexing: Lexing = plain;
  #atLineStart = true;
  #atStatementStart = true;
  /** The word that plain SQL ends with (its beginning): it decides what a quote or a dollar sign after it means. */
  #word = '';
  readonly #statement = new StatementNesting();
  /** Whether a backslash escapes in ordinary strings (`standard_conforming_strings = off`). */
  #oldStrings = false;

  constructor(onCommand: (line: Buffer) => void) {
    this.#onCommand = onCommand;
  }

  /** Whether what comes next is the beginning of a line and of a statement. */
  get isBetweenStatements(): boolean {
    return this.#lexing.in === 'plain' && this.#atLineStart && this.#atStatementStart;
  }

  /** Whether what comes next belongs to a quoted text or a comment that has to be ended. */
  get isInsideText(): boolean {
    return this.#lexing.in !== 'plain' && this.#lexing.in !== 'lineComment';
  }

  /** A line was taken by somebody else: what comes next is between statements. */
  beginStatement(): void {
    this.#atLineStart = true;
    this.#atStatementStart = true;
    this.#word = '';
  }

  /** From here on a backslash escapes in ordinary strings. */
  useOldStrings(): void {
    this.#oldStrings = true;
  }

  /**
   * Follows quotes and comments until a line begins that has to be looked at, or until the bytes end.
   * @returns how many bytes were understood
   */
  read(bytes: Buffer, isLast: boolean): number {
    const text = bytes.toString('latin1', 0, lexingWindow[this.#lexing.in === 'plain' ? 'plain' : 'quoted']);
    const isLastText = isLast && text.length === bytes.length;
    let at = 0;
    while (at < text.length) {
      const next =
        this.#lexing.in === 'plain' ? this.#lexPlain(text, at, isLastText) : this.#lexQuoted(text, at, isLastText);
      if (next === undefined) return at;
      at = next;
      if (this.isBetweenStatements) return at;
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
        this.#onCommand(Buffer.from(line, 'latin1'));
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

/** What to do with a dump that pg_dump did not write. */
export const tamperedHint =
  'The source database may have been tampered with. examples/open_backup.py writes the dump as it is: look at it, on an encrypted disk, before anything runs it.';

/** What psql and this scanner might take for different things, so that one would look for commands where the other has a text. */
function ambiguous(what: string): BackupError {
  return new BackupError('The dump cannot be read for certain', {
    code: 'DUMP_UNREADABLE',
    kind: 'integrity',
    reason: `pg_dump does not write ${what}`,
    hint: tamperedHint,
  });
}
