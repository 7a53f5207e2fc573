/**
 * A stage that lets through some of a dump's objects. pg_dump writes them one after another, each under a comment that heads
 * it (`-- Name: …; Type: …`); before the first stand the settings and, with --clean, one DROP for each object.
 *
 * What is decided by is the SQL, not the comment: in comments pg_dump writes names without quotes, and blanks for line breaks.
 */
import type {Transform} from 'node:stream';
import {headOf} from './entries.ts';
import {psqlCommandError} from './for-psql.ts';
import {scanStage} from './scan-stage.ts';
import type {CopyStatement, DumpHandler} from './scanner.ts';
import {splitStatements, withoutLead} from './sql-names.ts';

/** An object of a dump, or what belongs to one (an index, a comment, the value of a sequence). */
export interface FilteredEntry {
  /** The line that heads it, without the dashes and the line break: `Name: patients; Type: TABLE; Schema: public; Owner: -`. */
  head: string;
  /** Its SQL, from its first statement on; only the first megabyte. */
  sql: string;
}

/** `last`: let through behind everything else. `rewrite`: its bytes are latin1 in and out, so that no encoding is touched. */
export type Decision = 'keep' | 'drop' | 'last' | {rewrite: (sql: string) => string};

export interface EntryRules {
  /** Whether a statement before the first object is let through; it may be empty, at the end. */
  preamble(statement: string): boolean;
  /** SQL of our own, to run before the first object. */
  afterPreamble?(): string;
  entry(entry: FilteredEntry): Decision;
  /** Whether the rows of a table are let through. @param head of their entry */
  data(statement: CopyStatement, head: string): boolean;
  /** Is told of a table that has rows which are not let through. */
  leavesOut?(statement: CopyStatement): void;
  /** At the end of a dump. @throws what makes the stream fail */
  end?(): void;
}

/** Entries are looked at as a whole up to this length; only large objects and rows are longer than a few kilobytes. */
const longestLook = 1 << 20;
/** What stands before the line that heads an entry, and belongs to it. */
const opening = Buffer.from('--\n');

/**
 * Makes the stage. The same for every split of the dump into chunks.
 * @throws (the stream) BackupError DUMP_UNREADABLE when the dump holds a psql command or is cut off
 */
export function filterEntries(rules: EntryRules): Transform {
  const filter = new EntryFilter(rules);
  return scanStage(
    filter,
    () => filter.take(),
    () => filter.end(),
  );
}

class EntryFilter implements DumpHandler {
  readonly #rules: EntryRules;
  #out: Buffer[] = [];
  readonly #last: Buffer[] = [];
  /** SQL that is not decided on yet, or not passed on. */
  #pending: Buffer[] = [];
  #pendingBytes = 0;
  #place: 'preamble' | 'entry' | 'closing' = 'preamble';
  #head = '';
  /** The table whose rows are coming, if they are not let through, until the first one came. */
  #leftOut: CopyStatement | undefined;
  /** Of the entry; undefined until it is known. */
  #decision: Decision | undefined;

  constructor(rules: EntryRules) {
    this.#rules = rules;
  }

  take(): Buffer[] {
    const bytes = this.#out;
    this.#out = [];
    return bytes;
  }

  sql(bytes: Buffer): void {
    // A copy: the chunk that it is a part of may be used again.
    this.#pending.push(Buffer.from(bytes));
    this.#pendingBytes += bytes.length;
    if (this.#place !== 'entry') return;
    while (this.#pendingBytes > longestLook + opening.length) {
      const text = Buffer.concat(this.#pending);
      this.#pass(this.#decide(text.subarray(0, longestLook)));
      this.#hold(text.subarray(longestLook));
    }
  }

  command(line: Buffer): never {
    throw psqlCommandError(line.toString());
  }

  restrict(line: Buffer): void {
    this.#flush();
    this.#out.push(Buffer.from(line));
  }

  version(line: Buffer): void {
    this.#flush();
    this.#out.push(Buffer.from(line));
  }

  /** It stands between two entries, and is for all that follow. */
  setting(line: Buffer): void {
    this.#flush();
    this.#out.push(Buffer.from(line));
  }

  entry(line: Buffer): void {
    const mark = this.#beforeHead();
    if (this.#place === 'preamble') this.#endPreamble();
    this.#place = 'entry';
    this.#decision = undefined;
    this.#head = headOf(line);
    this.#hold(mark, Buffer.from(line));
  }

  complete(line: Buffer): void {
    const mark = this.#beforeHead();
    if (this.#place === 'preamble') this.#endPreamble();
    this.#place = 'closing';
    this.#out.push(...this.#last.splice(0), mark, Buffer.from(line));
  }

  copyStart(statement: CopyStatement, line: Buffer): void {
    const isKept = this.#rules.data(statement, this.#head);
    this.#decision = isKept ? 'keep' : 'drop';
    this.#leftOut = isKept ? undefined : statement;
    this.#flush();
    this.#pass(line);
  }

  copyData(bytes: Buffer): void {
    if (this.#leftOut) this.#rules.leavesOut?.(this.#leftOut);
    this.#leftOut = undefined;
    this.#pass(bytes);
  }

  copyEnd(line: Buffer): void {
    this.#leftOut = undefined;
    this.#pass(line);
  }

  end(): void {
    this.#flush();
    if (this.#place === 'preamble') this.#endPreamble();
    this.#out.push(...this.#last.splice(0));
    this.#rules.end?.();
  }

  /** Passes on what was held back of the last entry, but the comment mark that opens the next one, which it gives. */
  #beforeHead(): Buffer {
    const text = Buffer.concat(this.#pending);
    const isOpening = text.subarray(-opening.length).equals(opening) && [undefined, 0x0a].includes(text.at(-4));
    const end = isOpening ? text.length - opening.length : text.length;
    this.#hold(text.subarray(0, end));
    this.#flush();
    return text.subarray(end);
  }

  #hold(...texts: Buffer[]): void {
    this.#pending = texts;
    this.#pendingBytes = texts.reduce((sum, {length}) => sum + length, 0);
  }

  #endPreamble(): void {
    const sql = this.#rules.afterPreamble?.() ?? '';
    if (sql) this.#out.push(Buffer.from(sql));
  }

  /** Passes on all that was held back. */
  #flush(): void {
    const text = Buffer.concat(this.#pending);
    this.#hold();
    if (this.#place === 'closing') this.#out.push(text);
    else if (this.#place === 'entry') {
      this.#pass(this.#decide(text));
    } else {
      for (const statement of splitStatements(text.toString('latin1'))) {
        const bytes = Buffer.from(statement, 'latin1');
        if (this.#rules.preamble(withoutLead(bytes.toString()))) this.#out.push(bytes);
      }
    }
  }

  /** Asks about an entry that was not asked about yet; gives its text, rewritten if the answer wants that. */
  #decide(text: Buffer): Buffer {
    if (this.#decision !== undefined) return text;
    const decision = this.#rules.entry({head: this.#head, sql: withoutLead(text.toString())});
    this.#decision = typeof decision === 'object' ? 'keep' : decision;
    return typeof decision === 'object' ? Buffer.from(decision.rewrite(text.toString('latin1')), 'latin1') : text;
  }

  /** By the decision; before the first entry, everything. */
  #pass(bytes: Buffer): void {
    if (bytes.length === 0 || this.#decision === 'drop') return;
    if (this.#decision === 'last') this.#last.push(Buffer.from(bytes));
    else this.#out.push(bytes);
  }
}
