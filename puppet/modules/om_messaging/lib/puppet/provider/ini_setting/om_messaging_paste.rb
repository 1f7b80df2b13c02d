# frozen_string_literal: true

require_relative 'om_messaging'

Puppet::Type.type(:ini_setting).provide(:om_messaging_paste, parent: :om_messaging) do
  desc "Does the same with a file that PasteDeploy reads.

  There a key may be indented, and lines that are indented further continue its value. No section is added or removed."

  def self.specificity
    -1
  end

  private

  def style
    'paste'
  end
end
