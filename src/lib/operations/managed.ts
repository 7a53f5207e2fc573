/** Restoring on a managed server, where nobody is superuser (`--managed`). */
import {filterEntries} from '../dump/entry-filter.ts';
import {ManagedRules} from '../dump/managed.ts';
import {nameKey} from '../dump/sql-names.ts';
import {lookAtRole, missingExtensions} from '../load/managed-facts.ts';
import {type Session, uninterrupted} from '../postgres/query.ts';
import type {LoadFilter} from './load-filter.ts';

export interface ManagedFilter extends LoadFilter {
  /** Heads of the entries that are left out or changed. */
  heads: ReadonlySet<string>;
}

/** What lets through what the role of a session may restore. */
export async function managedFilter(session: Session): Promise<ManagedFilter> {
  const {settings, languages, extensionTables} = await lookAtRole(session);
  const rules = new ManagedRules({
    settings: settings ? new Set(settings) : undefined,
    languages: new Set(languages),
    extensionTables: extensionTables ? new Set(extensionTables.map(nameKey)) : undefined,
  });
  return {
    stage: filterEntries(rules),
    holds: (table) => rules.holds(table),
    leftOut: rules.leftOut,
    heads: rules.heads,
    check: () => undefined,
    async settle() {
      // Part of the result, after an interruption, too.
      for (const name of await missingExtensions(uninterrupted(session), rules.extensions)) {
        rules.leftOut.push({
          what: `extension ${name}`,
          because: 'the server does not let this role make it',
          sql: undefined,
        });
      }
    },
  };
}
