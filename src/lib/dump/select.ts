/**
 * What of a dump belongs to some of its tables: their definition, rows, constraints, indexes, triggers, rules, policies,
 * statistics, comments, and the sequences of their columns. Everything that is not recognised stays out: of what --clean drops
 * above all.
 */
import {BackupError} from '../errors.ts';
import {quoteIdentifier} from '../postgres/query.ts';
import type {Decision, EntryRules, FilteredEntry} from './entry-filter.ts';
import type {LeftOut} from './left-out.ts';
import {groups, schemaOf} from './outline.ts';
import type {CopyStatement} from './scanner.ts';
import type {Selection} from './selection.ts';
import {I, keyOf, nameKey, Q, splitStatements, unquote} from './sql-names.ts';

export interface SelectOptions {
  selection: Selection;
  /** Schemas to make, if they are not there. */
  createSchemas: ReadonlySet<string>;
}

const relationKinds = 'TABLE|FOREIGN TABLE|VIEW|MATERIALIZED VIEW|SEQUENCE';
/** What lies in a schema and is neither a relation nor a part of one. */
const schemaKinds =
  '(?:TYPE|DOMAIN|FUNCTION|PROCEDURE|AGGREGATE|OPERATOR(?: CLASS| FAMILY)?|COLLATION|(?:DEFAULT )?CONVERSION|' +
  'TEXT SEARCH (?:PARSER|TEMPLATE|DICTIONARY|CONFIGURATION))';

/** Of a foreign key; the last of a temporal one is a period (PostgreSQL 18). */
const column = `(?:PERIOD )?${I}`;
const event = `(?:INSERT|DELETE|TRUNCATE|UPDATE(?: OF ${I}(?:, ${I})*)?)`;

const patterns = {
  setting: /^(?:SET |SELECT pg_catalog\.set_config\(|$)/,
  dropRelation: new RegExp(`^DROP (?:${relationKinds}) IF EXISTS ${Q};`),
  dropPart: new RegExp(`^DROP (?:POLICY|RULE|TRIGGER) IF EXISTS ${I} ON ${Q};`),
  dropInSchema: new RegExp(String.raw`^DROP ${schemaKinds} IF EXISTS ${I}\.`),
  attach: new RegExp(`^ALTER TABLE (?:ONLY )?${Q} ATTACH PARTITION ${Q} `),
  foreignKey: new RegExp(
    String.raw`^ALTER TABLE (?:ONLY )?${Q}\s+ADD CONSTRAINT ${I} FOREIGN KEY \(${column}(?:, ${column})*\) REFERENCES ${Q}`,
  ),
  constraint: new RegExp(String.raw`^ALTER TABLE (?:ONLY )?${Q}\s+ADD CONSTRAINT ${I} `),
  create: new RegExp(`^CREATE (?:OR REPLACE )?(?:UNLOGGED |RECURSIVE )?(?:${relationKinds}) ${Q}`),
  alter: new RegExp(`^ALTER (?:${relationKinds}) (?:IF EXISTS )?(?:ONLY )?${Q}`),
  index: new RegExp(`^CREATE (?:UNIQUE )?INDEX ${I} ON (?:ONLY )?${Q}`),
  attachIndex: new RegExp(`^ALTER INDEX ${Q} ATTACH PARTITION ${Q};`),
  statistics: new RegExp(`^CREATE STATISTICS ${Q} `),
  statisticsTable: new RegExp(String.raw` FROM ${Q};\s*$`),
  trigger: new RegExp(
    `^CREATE (?:CONSTRAINT )?TRIGGER ${I} (?:BEFORE|AFTER|INSTEAD OF) ${event}(?: OR ${event})* ON ${Q}`,
  ),
  rule: new RegExp(String.raw`^CREATE (?:OR REPLACE )?RULE ${I} AS\s+ON [A-Z]+ TO ${Q}`),
  policy: new RegExp(`^CREATE POLICY ${I} ON ${Q}`),
  setval: /^SELECT pg_catalog\.setval\((E?)'((?:[^']|'')*)',/,
  refresh: new RegExp(`^REFRESH MATERIALIZED VIEW ${Q};`),
  remark: new RegExp(`^(?:COMMENT|SECURITY LABEL FOR ${I}) ON `),
  remarkRelation: new RegExp(`^(?:${relationKinds}) ${Q} IS `),
  remarkColumn: new RegExp(String.raw`^COLUMN ${Q}\.${I} IS `),
  remarkConstraint: new RegExp(`^CONSTRAINT ${I} ON ${Q} IS `),
  remarkPart: new RegExp(`^(?:TRIGGER|RULE|POLICY) ${I} ON ${Q} IS `),
  remarkOther: new RegExp(`^(?:INDEX|STATISTICS) ${Q} IS `),
  remarkSchema: new RegExp(`^SCHEMA ${I} IS `),
  remarkInSchema: new RegExp(String.raw`^(?:${schemaKinds}|CONSTRAINT ${I} ON DOMAIN) ${I}\.`),
  inSchema: new RegExp(String.raw`^(?:CREATE (?:OR REPLACE )?|ALTER )${schemaKinds} ${I}\.`),
  publish: new RegExp(`^ALTER PUBLICATION ${I} ADD TABLE (?:ONLY )?${Q}`),
  publishSchema: new RegExp(`^ALTER PUBLICATION ${I} ADD TABLES IN SCHEMA ${I}`),
  anySchema: /; Schema: (.*); Owner: [^;]*$/,
};

/** Tells what of a dump is chosen; for `filterEntries`. */
export class SelectRules implements EntryRules {
  /** What belongs to chosen tables and is not restored. */
  readonly leftOut: LeftOut[] = [];
  /** Keys of chosen tables whose rows were there. */
  readonly filled = new Set<string>();
  readonly #selection: Selection;
  readonly #createSchemas: ReadonlySet<string>;
  readonly #made = new Set<string>();
  /** Keys of indexes and extended statistics that are let through, which other entries name. */
  readonly #kept = new Set<string>();
  /** Foreign keys that stay out, by table and name. */
  readonly #withoutKeys = new Set<string>();

  constructor({selection, createSchemas}: SelectOptions) {
    this.#selection = selection;
    this.#createSchemas = createSchemas;
  }

  /** By a table's name as a COPY statement writes it. */
  holds(table: string): boolean {
    return this.#selection.relations.has(keyOf(table));
  }

  preamble(statement: string): boolean {
    if (patterns.setting.test(statement)) return true;
    const [relation] = groups(patterns.dropRelation, statement);
    const [, owner] = groups(patterns.dropPart, statement);
    const [changed] = groups(patterns.alter, statement);
    // A dummy of a view that another object needs until it is dropped.
    const [created] = groups(patterns.create, statement);
    const name = relation ?? owner ?? changed ?? created;
    if (name !== undefined) return this.holds(name);
    const [schema] = groups(patterns.dropInSchema, statement);
    // A CASCADE (of a base type) reaches tables that are not chosen.
    return schema !== undefined && this.#isWhole(schema) && !/ CASCADE;\s*$/.test(statement);
  }

  afterPreamble(): string {
    const schemas = [...this.#createSchemas].map((name) => `CREATE SCHEMA IF NOT EXISTS ${quoteIdentifier(name)};\n`);
    const kept = [...this.#selection.relations.values()].filter(
      ({kind, isDropped}) => !isDropped && /table/.test(kind),
    );
    const drops = kept.map(({text}) => text).join(', ');
    return [...schemas, ...(drops ? [`DROP TABLE IF EXISTS ${drops};\n`] : [])].join('');
  }

  data({table}: CopyStatement): boolean {
    const isHeld = this.holds(table);
    if (isHeld) this.filled.add(keyOf(table));
    return isHeld;
  }

  entry({head, sql}: FilteredEntry): Decision {
    const isKept = this.#isKept(sql);
    if (typeof isKept === 'string') return isKept;
    if (isKept !== undefined) return isKept ? 'keep' : 'drop';
    const schema = patterns.anySchema.exec(head)?.[1];
    const isOther = schema !== undefined && this.#selection.wholeSchemas.has(schema) && sql !== '';
    if (isOther) this.leftOut.push({what: head, because: 'it is of a kind that is not known', sql: undefined});
    return 'drop';
  }

  /** @throws BackupError CONTENTS_DIFFER when a chosen table was not in the dump after all */
  end(): void {
    const lost = [...this.#selection.relations].filter(([key, {kind}]) => /table/.test(kind) && !this.#made.has(key));
    if (lost.length === 0) return;
    throw new BackupError('The backup does not hold what its beginning says', {
      code: 'CONTENTS_DIFFER',
      kind: 'integrity',
      reason: `it does not define ${lost.map(([, {text}]) => text).join(', ')}`,
      hint: 'Choose another backup (loma-backup list), and keep this one for an investigation.',
    });
  }

  #isWhole(schema: string): boolean {
    return this.#selection.wholeSchemas.has(unquote(schema));
  }

  /** Undefined for what is not recognised. */
  #isKept(sql: string): boolean | 'last' | undefined {
    return (
      this.#partition(sql) ??
      this.#foreignKey(sql) ??
      this.#relation(sql) ??
      this.#index(sql) ??
      this.#part(sql) ??
      this.#sequenceValue(sql) ??
      this.#remark(sql) ??
      this.#publication(sql) ??
      this.#inSchema(sql)
    );
  }

  /**
   * A partition goes back to its partitioned table at the very end when that is not restored, and has indexes and keys
   * already: PostgreSQL then finds the partition's own, where it would otherwise make them before the dump does.
   */
  #partition(sql: string): boolean | 'last' | undefined {
    const [parent, partition] = groups(patterns.attach, sql);
    if (!parent || !partition) return undefined;
    return this.holds(partition) && !this.holds(parent) ? 'last' : this.holds(partition);
  }

  #foreignKey(sql: string): boolean | undefined {
    const match = patterns.foreignKey.exec(sql);
    const [, table, name] = match ?? [];
    const referenced = match?.at(-1);
    if (!table || !name || !referenced) return undefined;
    if (!this.holds(table)) return false;
    if (this.holds(referenced)) return true;
    this.#withoutKeys.add(`${keyOf(table)} ${name}`);
    this.leftOut.push({
      what: `foreign key ${name} of ${table}`,
      because: `it refers to ${referenced}, which is not restored`,
      sql: firstStatement(sql),
    });
    return false;
  }

  #relation(sql: string): boolean | undefined {
    const [created] = groups(patterns.create, sql);
    if (created && this.holds(created)) this.#made.add(keyOf(created));
    const [table, constraint] = groups(patterns.constraint, sql);
    // Its index has the constraint's name.
    if (table && constraint && this.holds(table)) this.#keep(schemaOf(table), constraint);
    const name = created ?? table ?? groups(patterns.alter, sql)[0] ?? groups(patterns.refresh, sql)[0];
    return name === undefined ? undefined : this.holds(name);
  }

  #index(sql: string): boolean | undefined {
    const [name, table] = groups(patterns.index, sql);
    if (name && table) {
      if (this.holds(table)) this.#keep(schemaOf(table), name);
      return this.holds(table);
    }
    const [parent, attached] = groups(patterns.attachIndex, sql);
    return parent && attached ? this.#kept.has(keyOf(parent)) && this.#kept.has(keyOf(attached)) : undefined;
  }

  #keep(schema: string, name: string): void {
    this.#kept.add(nameKey({schema, name: unquote(name)}));
  }

  #part(sql: string): boolean | undefined {
    for (const pattern of [patterns.trigger, patterns.rule, patterns.policy]) {
      const table = pattern.exec(sql)?.at(-1);
      if (table) return this.holds(table);
    }
    const [statistics] = groups(patterns.statistics, sql);
    if (!statistics) return undefined;
    const [table] = groups(patterns.statisticsTable, firstStatement(sql));
    if (!table || !this.holds(table)) return false;
    this.#kept.add(keyOf(statistics));
    return true;
  }

  #sequenceValue(sql: string): boolean | undefined {
    const [escaped, literal] = groups(patterns.setval, sql);
    if (literal === undefined) return undefined;
    const name = literal.replaceAll("''", "'");
    return this.holds(escaped ? name.replaceAll('\\\\', '\\') : name);
  }

  #remark(sql: string): boolean | undefined {
    const match = patterns.remark.exec(sql);
    if (!match) return undefined;
    const about = sql.slice(match[0].length);
    const [relation] = groups(patterns.remarkRelation, about);
    const [column] = groups(patterns.remarkColumn, about);
    const [constraint, constrained] = groups(patterns.remarkConstraint, about);
    const [, partOf] = groups(patterns.remarkPart, about);
    const [other] = groups(patterns.remarkOther, about);
    const [schema] = groups(patterns.remarkSchema, about);
    if (constrained && this.#withoutKeys.has(`${keyOf(constrained)} ${constraint}`)) return false;
    const name = relation ?? column ?? constrained ?? partOf;
    if (name !== undefined) return this.holds(name);
    if (other !== undefined) return this.#kept.has(keyOf(other));
    if (schema !== undefined) return this.#createSchemas.has(unquote(schema));
    const inSchema = patterns.remarkInSchema.exec(about)?.at(-1);
    return inSchema !== undefined && this.#isWhole(inSchema);
  }

  #publication(sql: string): boolean | undefined {
    const [publication, table] = groups(patterns.publish, sql);
    const [schemaPublication, schema] = groups(patterns.publishSchema, sql);
    const isOurs = table ? this.holds(table) : schema !== undefined && this.#isWhole(schema);
    if (!isOurs) return table || schema ? false : undefined;
    this.leftOut.push({
      what: `${table ?? `schema ${schema}`} in the publication ${publication ?? schemaPublication}`,
      because: 'publications are not restored with tables',
      sql: firstStatement(sql),
    });
    return false;
  }

  #inSchema(sql: string): boolean | undefined {
    if (/^CREATE SCHEMA /.test(sql)) return false;
    const [schema] = groups(patterns.inSchema, sql);
    return schema === undefined ? undefined : this.#isWhole(schema);
  }
}

function firstStatement(sql: string): string {
  return (splitStatements(sql)[0] ?? sql).trim();
}
