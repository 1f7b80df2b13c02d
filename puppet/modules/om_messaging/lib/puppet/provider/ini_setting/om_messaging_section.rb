# frozen_string_literal: true

require_relative 'om_messaging'

Puppet::Type.type(:ini_setting).provide(:om_messaging_section, parent: :om_messaging) do
  desc 'Edits one key like `om_messaging` does, and removes the section with its last key.'

  def self.specificity
    -1
  end

  private

  def section_removable?
    true
  end
end
