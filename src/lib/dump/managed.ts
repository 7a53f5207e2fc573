/**
 * What of a dump a managed server takes from nobody but its superuser, whom it gives to no customer: event triggers,
 * publications and subscriptions, comments on extensions, settings of functions that only a superuser may set, functions in
 * untrusted languages, rows of tables that belong to an extension, and the schema public where it belongs to the server's own role.
 */
import {isReadable} from '../postgres/query.ts';
import type {Decision, EntryRules, FilteredEntry} from './entry-filter.ts';
import type {LeftOut} from './left-out.ts';
import {optionalStatement} from './optional-statement.ts';
import {groups} from './outline.ts';
import type {CopyStatement} from './scanner.ts';
import {I, keyOf, Q, unquote} from './sql-names.ts';

/** What the role of a restore may do on its server. */
export interface ManagedFacts {
  /** Names of settings that it may give to a function; undefined: all. */
  settings: ReadonlySet<string> | undefined;
  /** Languages that it may write functions in. */
  languages: ReadonlySet<string>;
  /** Tables of extensions that it may write rows into, as `keyOf` gives names; undefined: all. */
  extensionTables: ReadonlySet<string> | undefined;
}

const drops =
  /^DROP (?:EVENT TRIGGER|PUBLICATION|SUBSCRIPTION|EXTENSION) |^(?:DROP|CREATE) SCHEMA (?:IF EXISTS )?public;/;
const objectPattern = new RegExp(`^(?:CREATE|ALTER) (EVENT TRIGGER|PUBLICATION|SUBSCRIPTION) ${I}`);
const remarkPattern = new RegExp(
  `^(?:COMMENT|SECURITY LABEL FOR ${I}) ON ((?:EXTENSION|EVENT TRIGGER|PUBLICATION|SUBSCRIPTION) ${I}|SCHEMA public) IS `,
);
const extensionPattern = new RegExp(`^CREATE EXTENSION IF NOT EXISTS ${I} [^;]*;`);
const tablePattern = new RegExp(`^CREATE (?:UNLOGGED )?TABLE ${Q} `);
const functionPattern = new RegExp(String.raw`^CREATE (?:OR REPLACE )?(?:FUNCTION|PROCEDURE) ${Q}\(`);
/** Between the language of a function and its body, where its settings stand. */
const clausesPattern = new RegExp(String.raw`\n    LANGUAGE ${I}([\s\S]*?)(?=\n    (?:AS |BEGIN ATOMIC|RETURN )|$)`);
const settingPattern = /\n {4}SET ("[^"]+"|[\w.]+) TO (?:'(?:[^']|'')*'|[^'\n])*/g;

/** An extension that cannot be made: not allowed, not installed on the server, or not offered. */
const unavailable = 'insufficient_privilege OR undefined_file OR feature_not_supported OR undefined_object';

/** Tells what of a dump is let through; for `filterEntries`. */
export class ManagedRules implements EntryRules {
  readonly leftOut: LeftOut[] = [];
  /** Heads of the entries that are left out or changed: a proof can't compare them. */
  readonly heads = new Set<string>();
  /** Extensions that the dump wants, without quotes: some may not come to be. */
  readonly extensions: string[] = [];
  readonly #facts: ManagedFacts;
  /** Tables that the dump makes; the others that it has rows of are made by an extension. */
  readonly #made = new Set<string>();
  readonly #withoutRows = new Set<string>();

  constructor(facts: ManagedFacts) {
    this.#facts = facts;
  }

  preamble(statement: string): boolean {
    return !drops.test(statement);
  }

  data({table}: CopyStatement, head: string): boolean {
    const key = keyOf(table);
    const {extensionTables} = this.#facts;
    // Of a name that is not UTF-8 it cannot be said whose it is: its rows are not given up.
    if (this.#made.has(key) || !extensionTables || extensionTables.has(key) || !isReadable(table)) return true;
    this.#withoutRows.add(key);
    this.heads.add(head);
    return false;
  }

  leavesOut({table}: CopyStatement): void {
    this.#leaveOut(
      `the rows of ${table} that are not the extension's own`,
      'the table belongs to an extension, and is not there or not for this role to write to',
    );
  }

  /** Whether the rows of a table were let through, by its name as a COPY statement writes it. */
  holds(table: string): boolean {
    return !this.#withoutRows.has(keyOf(table));
  }

  entry({head, sql}: FilteredEntry): Decision {
    const [table] = groups(tablePattern, sql);
    if (table) this.#made.add(keyOf(table));
    const decision = this.#object(sql) ?? this.#remark(sql) ?? this.#extension(sql) ?? this.#function(sql) ?? 'keep';
    if (decision !== 'keep') this.heads.add(head);
    return decision;
  }

  #object(sql: string): Decision | undefined {
    const [kind, name] = groups(objectPattern, sql);
    if (drops.test(sql)) return 'drop';
    if (!kind || !name) return undefined;
    // Not the SQL of a subscription: there is a password in it.
    const isToldBefore = sql.startsWith('ALTER');
    if (!isToldBefore) this.#leaveOut(`${kind.toLowerCase()} ${name}`, 'only a superuser may make it on many servers');
    return 'drop';
  }

  #remark(sql: string): Decision | undefined {
    const [, what] = groups(remarkPattern, sql);
    if (!what) return undefined;
    this.#leaveOut(
      `the comment or label of ${what.replace(/^[A-Z ]+(?= )/, (kind) => kind.toLowerCase())}`,
      'only its owner may write it',
    );
    return 'drop';
  }

  #extension(sql: string): Decision | undefined {
    const match = extensionPattern.exec(sql);
    if (!match?.[1] || optionalStatement(match[0], unavailable) === undefined) return undefined;
    this.extensions.push(unquote(match[1]));
    const optional = (statement: string) => optionalStatement(statement, unavailable) ?? statement;
    return {rewrite: (text) => text.replace(/^CREATE EXTENSION [^;]*;/m, optional)};
  }

  #function(sql: string): Decision | undefined {
    const [name] = groups(functionPattern, sql);
    const [language, clauses = ''] = groups(clausesPattern, sql);
    if (!name || !language) return undefined;
    if (!this.#facts.languages.has(unquote(language))) {
      this.#leaveOut(`function ${name}`, `this role may not write functions in the language ${language}`);
      return 'drop';
    }
    const {settings} = this.#facts;
    const forbidden = [...clauses.matchAll(settingPattern)].filter(
      ([, setting = '']) => settings && !settings.has(unquote(setting).toLowerCase()),
    );
    if (forbidden.length === 0) return undefined;
    for (const [text] of forbidden) {
      this.#leaveOut(`${text.trim()} of function ${name}`, 'this role may not set that');
    }
    const strip = (text: string) =>
      forbidden.reduce((rest, [setting]) => rest.replace(latin1(setting), () => ''), text);
    return {rewrite: (text) => text.replace(clausesPattern, (found) => strip(found))};
  }

  #leaveOut(what: string, because: string): void {
    this.leftOut.push({what, because, sql: undefined});
  }
}

/** The text as its bytes look in latin1, which rewriting is done in. */
function latin1(text: string): string {
  return Buffer.from(text).toString('latin1');
}
